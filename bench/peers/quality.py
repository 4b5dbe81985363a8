#!/usr/bin/env python3
"""What the peers' quantised formats cost in quality on the demo model: KL to F32, top-1 agreement, bits.

  bench/peers/quality.py [--chunks N] [--formats bf16,Q8_0,Q4_K_M]
  bench/peers/quality.py --score FILE [--name NAME]      scores another engine's logits on the same tokens

The text is source files of the Python library that the demo model has not seen, in a fixed order.
llama-perplexity cuts it into chunks of 256 tokens, each begins with the bos token, and positions
128 to 254 are scored. The reference runs on F32 weights with an F32 cache and no flash attention;
the others do too, so that only the weights differ, and once more with the engine's defaults.

Files under PEERS_DIR/quality:
  tokens.json      {"bos": 0, "vocab_size": V, "scored_from": 128, "scored_count": 127,
                    "text_sha256": "...", "chunks": [[256 token ids], ...]}
  reference.f32    F32 log-probabilities, little-endian, [chunk][scored position][vocabulary]
  FORMAT.json      per-position numbers: {"kl": [...], "same_top1": [...]} in the same order
  results.json     the table
FILE of --score has the layout of reference.f32, with logits or log-probabilities.
"""
import argparse
import hashlib
import json
import pathlib
import subprocess
import sys
import sysconfig

import environment
import places

environment.run_where_numpy_is()
import numpy  # noqa: E402

# Held out of the demo model's training (training/data.py).
TEXT_FILES = ('calendar.py', 'configparser.py', 'csv.py', 'fractions.py', 'heapq.py', 'netrc.py',
              'plistlib.py', 'queue.py', 'selectors.py', 'shelve.py', 'shlex.py', 'statistics.py',
              'string.py', 'textwrap.py', 'trace.py')
CONTEXT = 256
SCORED_FROM = CONTEXT // 2
SCORED = CONTEXT - 1 - SCORED_FROM
BOS = 0
OUT_DIR = places.PEERS_DIR / 'quality'
EXACT = ('-ctk', 'f32', '-ctv', 'f32', '-fa', 'off')


def write_text(path):
    root = pathlib.Path(sysconfig.get_paths()['stdlib'])
    text = ''.join((root / name).read_text(encoding='utf-8') for name in TEXT_FILES)
    path.write_text(text, encoding='utf-8')
    return hashlib.sha256(text.encode()).hexdigest()


def log_probabilities(gguf_format, text, chunks, options):
    """Runs one GGUF file over the text. Returns (tokens [chunk, position], [chunk, scored, vocabulary])."""
    kld = OUT_DIR / 'run.kld'
    command = [places.LLAMA_BIN / 'llama-perplexity', '-m', places.gguf_path('demo', gguf_format), '-f', text,
               '-c', CONTEXT, '--chunks', chunks, '-t', 2, *options, '--kl-divergence-base', kld]
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, cwd=places.working_dir())
    if done.returncode != 0:
        sys.exit(f'{done.stdout[-2000:]}\nllama-perplexity failed with {done.returncode}')
    result = read_kld(kld)
    kld.unlink()
    return result


def read_kld(path):
    """The file holds the tokens, then per position a scale, a minimum and 16-bit log-probabilities."""
    with open(path, 'rb') as file:
        if file.read(8) != b'_logits_':
            sys.exit(f'{path}: not a file of log-probabilities')
        context, vocab, chunks = numpy.frombuffer(file.read(12), '<i4')
        tokens = numpy.frombuffer(file.read(4 * context * chunks), '<i4').reshape(chunks, context)
        words = 2 * ((vocab + 1) // 2) + 4
        rows = numpy.fromfile(file, '<u2').reshape(chunks, context - 1 - context // 2, words)
    head = numpy.ascontiguousarray(rows[..., :4]).view('<f4')
    values = head[..., 1:2] + head[..., 0:1] * rows[..., 4:4 + vocab].astype(numpy.float32)
    return tokens, normalised(values)


def normalised(logits):
    """Log-probabilities of logits, a chunk at a time to bound memory."""
    out = numpy.empty(logits.shape, numpy.float32)
    for index, chunk in enumerate(logits):
        wide = chunk.astype(numpy.float64)
        wide -= wide.max(-1, keepdims=True)
        out[index] = wide - numpy.log(numpy.exp(wide).sum(-1, keepdims=True))
    return out


def compare(reference, other):
    """Per position: KL(reference || other), and whether both prefer the same token."""
    kl, same = [], []
    for ours, theirs in zip(reference, other):
        wide = ours.astype(numpy.float64)
        kl.append((numpy.exp(wide) * (wide - theirs)).sum(-1))
        same.append(ours.argmax(-1) == theirs.argmax(-1))
    return numpy.concatenate(kl), numpy.concatenate(same)


def perplexity(log_probs, tokens):
    following = tokens[:, SCORED_FROM + 1:]
    chosen = numpy.take_along_axis(log_probs, following[..., None].astype(numpy.int64), -1)
    return float(numpy.exp(-chosen.astype(numpy.float64).mean()))


def weight_bytes(gguf_format):
    """(bytes of tensor data, parameters, {tensor type: share of the parameters})."""
    sys.path.insert(0, str(places.LLAMA_SOURCE / 'gguf-py'))
    import gguf
    tensors = gguf.GGUFReader(places.gguf_path('demo', gguf_format)).tensors
    parameters = sum(int(tensor.n_elements) for tensor in tensors)
    shares = {}
    for tensor in tensors:
        name = tensor.tensor_type.name
        shares[name] = shares.get(name, 0) + int(tensor.n_elements) / parameters
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    return sum(int(tensor.n_bytes) for tensor in tensors), parameters, \
        {name: round(share, 4) for name, share in ordered}


def summary(name, kl, same, ppl):
    return {'name': name, 'positions': int(kl.size), 'kl_mean': float(kl.mean()),
            'kl_median': float(numpy.median(kl)), 'kl_p99': float(numpy.percentile(kl, 99)),
            'kl_max': float(kl.max()), 'kl_mean_error': float(kl.std() / numpy.sqrt(kl.size)),
            'same_top1': float(same.mean()), 'perplexity': ppl}


def print_row(row):
    bits = f'{row["bits_per_weight"]:6.3f}' if 'bits_per_weight' in row else '     -'
    print(f'{row["name"]:24} {bits} bits  KL mean {row["kl_mean"]:.3e} +- {row["kl_mean_error"]:.0e}  '
          f'median {row["kl_median"]:.2e}  p99 {row["kl_p99"]:.2e}  max {row["kl_max"]:.2e}  '
          f'top-1 {100 * row["same_top1"]:.2f} %  perplexity {row["perplexity"]:.3f}', flush=True)


def write_numbers(name, kl, same):
    numbers = {'kl': [float(f'{value:.6g}') for value in kl], 'same_top1': [int(value) for value in same]}
    (OUT_DIR / f'{name}.json').write_text(json.dumps(numbers))


def measure(formats, chunks):
    OUT_DIR.mkdir(parents=True, exist_ok=True)
    text = OUT_DIR / 'text.txt'
    digest = write_text(text)
    tokens, reference = log_probabilities('f32', text, chunks, EXACT)
    with_bos = tokens.copy()
    with_bos[:, 0] = BOS  # The engine puts it there before it runs; the file holds what it replaced.
    (OUT_DIR / 'tokens.json').write_text(json.dumps({
        'bos': BOS, 'vocab_size': reference.shape[-1], 'scored_from': SCORED_FROM, 'scored_count': SCORED,
        'text_sha256': digest, 'chunks': with_bos.tolist()}))
    reference.astype('<f4').tofile(OUT_DIR / 'reference.f32')
    print(f'{len(tokens)} chunks, {reference.shape[0] * SCORED} positions, F32 perplexity '
          f'{perplexity(reference, tokens):.3f}', flush=True)
    rows = []
    for gguf_format in formats:
        stored, parameters, types = weight_bytes(gguf_format)
        for suffix, options in (('', EXACT), ('-default-cache', ())):
            _, other = log_probabilities(gguf_format, text, chunks, options)
            kl, same = compare(reference, other)
            write_numbers(gguf_format + suffix, kl, same)
            row = summary(gguf_format + suffix, kl, same, perplexity(other, tokens))
            row.update(bits_per_weight=8 * stored / parameters, weight_bytes=stored, parameters=parameters,
                       file_bytes=places.gguf_path('demo', gguf_format).stat().st_size, tensor_types=types)
            print_row(row)
            rows.append(row)
    (OUT_DIR / 'results.json').write_text(json.dumps(rows, indent=1))


def score(path, name):
    tokens = json.loads((OUT_DIR / 'tokens.json').read_text())
    shape = (len(tokens['chunks']), tokens['scored_count'], tokens['vocab_size'])
    reference = numpy.fromfile(OUT_DIR / 'reference.f32', '<f4').reshape(shape)
    logits = numpy.fromfile(path, '<f4')
    if logits.size != reference.size:
        sys.exit(f'{path}: {logits.size} values, {reference.size} expected: {shape}')
    other = normalised(logits.reshape(shape))
    kl, same = compare(reference, other)
    row = summary(name, kl, same, perplexity(other, numpy.array(tokens['chunks'])))
    print_row(row)
    write_numbers(name, kl, same)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--chunks', type=int, default=64)
    parser.add_argument('--formats', default='bf16,Q8_0,Q4_K_M')
    parser.add_argument('--score', type=pathlib.Path, help='logits of another engine, see above')
    parser.add_argument('--name', default='scored', help='of the row that --score prints')
    arguments = parser.parse_args()
    if arguments.score:
        score(arguments.score, arguments.name)
    else:
        measure(arguments.formats.split(','), arguments.chunks)


if __name__ == '__main__':
    main()
