#!/usr/bin/env python3
"""The table of docs/formats.md: what each format takes and what it costs in quality, ours and the peers'.

  bench/quality/table.py [--threads N] [--write]     --write puts the table into docs/formats.md

Runs switchyard-quality (SWITCHYARD_BIN) on the demo model in each format over the tokens of bench/peers/quality.py,
which runs first where its results are not there yet. Exit status 1 when one of ours is worse than its peer.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'peers'))
import places  # noqa: E402
import quality  # noqa: E402  (starts again under a Python that has numpy)
import checkpoint_copies  # noqa: E402
import report as reports  # noqa: E402
import numpy  # noqa: E402

DOCUMENT = places.ROOT / 'docs/formats.md'
TOKENS = quality.OUT_DIR / 'tokens.json'
MIB = 1 << 20


def run_ours(model_dir, weights, threads, out):
    command = [places.SWITCHYARD_BIN / 'switchyard-quality', '--model', model_dir, '--weights', weights,
               '--tokens', TOKENS, '--out', out, '--threads', threads]
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f'{done.stderr[-2000:]}\nswitchyard-quality failed with {done.returncode}')
    return next(json.loads(line) for line in done.stdout.splitlines() if line.startswith('{'))


def read_logits(path, shape):
    values = numpy.fromfile(path, '<f4')
    path.unlink()
    return quality.normalised(values.reshape(shape))


def our_rows(threads):
    text = json.loads(TOKENS.read_text())
    shape = (len(text['chunks']), text['scored_count'], text['vocab_size'])
    reference = numpy.fromfile(quality.OUT_DIR / 'reference.f32', '<f4').reshape(shape)
    demo = places.HF_MODELS['demo']
    rows, own = [], None
    with tempfile.TemporaryDirectory(prefix='switchyard-quality-') as folder:
        out = pathlib.Path(folder) / 'logits'
        for name in ('f32', 'bf16', 'fp8', 'int8', 'int4'):
            model, weights = demo, name
            if name in ('f32', 'fp8'):
                model, weights = pathlib.Path(folder) / name, 'auto'
                checkpoint_copies.copy(demo, model, name)
            report = run_ours(model, weights, threads, out)
            logits = read_logits(out, shape)
            own = logits if own is None else own
            rows.append(our_row(name, report, quality.compare(reference, logits), quality.compare(own, logits)))
            print(f'{name}: KL {rows[-1]["kl"]:.3e}', file=sys.stderr, flush=True)
    return rows


def our_row(name, report, to_peers_f32, to_own_f32):
    kl, same = to_peers_f32
    return {'name': name, 'bits': reports.bits_per_weight(report['shares']),
            'bits_without_embedding': reports.bits_per_weight(report['shares'], ('embedding',)),
            'memory': report['weight_bytes'] / MIB, 'grown': report['resident_bytes'] / MIB,
            'load_s': report['load_s'], 'kl': float(kl.mean()), 'kl_median': float(numpy.median(kl)),
            'kl_own': float(to_own_f32[0].mean()), 'top1': float(same.mean())}


def peer_loading(gguf_format):
    """(MiB of its weight buffers, seconds to load) as the peer itself says."""
    command = [places.LLAMA_BIN / 'llama-perplexity', '-m', places.gguf_path('demo', gguf_format), '-f',
               quality.OUT_DIR / 'text.txt', '-c', quality.CONTEXT, '--chunks', 1, '-t', 2, '-lv', 4, '-lm', 'none']
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, cwd=places.working_dir())
    if done.returncode != 0:
        sys.exit(f'{done.stdout[-2000:]}\nllama-perplexity failed with {done.returncode}')
    return reports.read_peer_log(done.stdout)


def peer_bits_without_embedding(gguf_format):
    sys.path.insert(0, str(places.LLAMA_SOURCE / 'gguf-py'))
    import gguf
    tensors = [tensor for tensor in gguf.GGUFReader(places.gguf_path('demo', gguf_format)).tensors
               if tensor.name != 'token_embd.weight']
    return 8 * sum(int(tensor.n_bytes) for tensor in tensors) / sum(int(tensor.n_elements) for tensor in tensors)


def peer_rows():
    results = {row['name']: row for row in json.loads((quality.OUT_DIR / 'results.json').read_text())}
    rows = []
    for name in ('bf16', 'Q8_0', 'Q4_K_M'):
        memory, load_s = peer_loading(name)
        row = results[name]
        rows.append({'name': f'llama.cpp {name}', 'bits': row['bits_per_weight'],
                     'bits_without_embedding': peer_bits_without_embedding(name), 'memory': memory,
                     'load_s': load_s, 'kl': row['kl_mean'], 'kl_median': row['kl_median'],
                     'top1': row['same_top1']})
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--write', action='store_true', help='put the table into docs/formats.md')
    arguments = parser.parse_args()
    if not (quality.OUT_DIR / 'results.json').exists():
        quality.measure(['bf16', 'Q8_0', 'Q4_K_M'], 64)
    rows = our_rows(arguments.threads) + peer_rows()
    table = reports.markdown(rows)
    print(table)
    if arguments.write:
        DOCUMENT.write_text(reports.with_table(DOCUMENT.read_text(encoding='utf-8'), table), encoding='utf-8')
    found = reports.shortfalls(rows)
    print('\n'.join(f'missed: {text}' for text in found) or 'no worse than the peers at no more bits')
    return 1 if found else 0


if __name__ == '__main__':
    sys.exit(main())
