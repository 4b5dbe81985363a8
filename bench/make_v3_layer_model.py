#!/usr/bin/env python3
"""Writes a checkpoint with the true layer shapes of DeepSeek-V3, 12 GB: FP8 as DeepSeek ships it.

  bench/make_v3_layer_model.py --out DIR [--seed N] [--ue8m0]

One dense and one MoE layer (256 experts), 128 heads, a vocabulary of 4096; the tokenizer is the demo
model's. Projections and experts are e4m3 with a scale per 128 x 128 block (f32, or one byte with
--ue8m0), the rest BF16, the correction bias F32. Codes are those of a normal distribution in 256
steps; with the scales, weights have a standard deviation of about 1/sqrt(inputs). A tensor is
written a piece at a time: memory stays under 200 MB. Needs numpy.
"""
import argparse
import json
import math
import pathlib
import shutil
import statistics
import struct
import sys
import zlib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / 'peers'))

import environment  # noqa: E402
import places  # noqa: E402

environment.run_where_numpy_is()
import make_mid_model as mid  # noqa: E402
import numpy  # noqa: E402

CONFIG = mid.CONFIG | {
    'hidden_size': 7168, 'intermediate_size': 18432, 'moe_intermediate_size': 2048,
    'num_hidden_layers': 2, 'num_attention_heads': 128, 'num_key_value_heads': 128,
    'q_lora_rank': 1536, 'n_routed_experts': 256, 'num_experts_per_tok': 8,
    'quantization_config': {'quant_method': 'fp8', 'fmt': 'e4m3', 'activation_scheme': 'dynamic',
                            'weight_block_size': [128, 128]},
}
FILE_BYTES_MAX = 4_300_000_000
PIECE_CODES = 1 << 25
BLOCK = 128
SCALE_SUFFIX = '_scale_inv'


def fp8_value(code):
    exponent, fraction = code >> 3, (code & 7) / 8
    return fraction * 2.0 ** -6 if exponent == 0 else (1 + fraction) * 2.0 ** (exponent - 7)


def normal_codes():
    """256 e4m3 codes, equally likely, that together look normal, and their standard deviation."""
    levels = [fp8_value(code) for code in range(0x7F)]
    normal, codes, square = statistics.NormalDist(), [], 0.0
    for step in range(256):
        value = 64 * normal.inv_cdf((step + 0.5) / 256)
        code = min(range(0x7F), key=lambda each: abs(levels[each] - abs(value)))
        square += levels[code] ** 2 / 256
        codes.append(code | (0x80 if value < 0 else 0))
    return numpy.array(codes, dtype=numpy.uint8), math.sqrt(square)


CODES, DEVIATION = normal_codes()


def is_fp8(name):
    return name.endswith('_proj.weight') or name.endswith('kv_a_proj_with_mqa.weight')


def tensors(ue8m0):
    """(name, dtype, shape) of every tensor, scales behind their codes."""
    for name, shape in mid.tensors(CONFIG):
        if not is_fp8(name):
            yield name, 'F32' if mid.is_f32(name) else 'BF16', shape
            continue
        yield name, 'F8_E4M3', shape
        blocks = tuple(-(-extent // BLOCK) for extent in shape)
        yield name + SCALE_SUFFIX, 'F8_E8M0' if ue8m0 else 'F32', blocks


def byte_size(dtype, shape):
    return math.prod(shape) * {'F8_E4M3': 1, 'F8_E8M0': 1, 'BF16': 2, 'F32': 4}[dtype]


def write_codes(file, generator, count):
    while count > 0:
        piece = min(count, PIECE_CODES)
        words = generator.integers(0, 1 << 64, -(-piece // 8), dtype=numpy.uint64)
        file.write(CODES[words.view(numpy.uint8)[:piece]].tobytes())
        count -= piece


def write_scales(file, generator, dtype, shape):
    inputs = shape[1] * BLOCK
    exponents = -math.log2(DEVIATION * math.sqrt(inputs)) + generator.uniform(-0.5, 0.5, shape)
    if dtype == 'F8_E8M0':
        file.write((numpy.rint(exponents) + 127).astype(numpy.uint8).tobytes())
    else:
        file.write(numpy.exp2(exponents).astype('<f4').tobytes())


def write_file(path, entries, seed):
    header, offset = {'__metadata__': {'format': 'pt'}}, 0
    for name, dtype, shape in entries:
        end = offset + byte_size(dtype, shape)
        header[name] = {'dtype': dtype, 'shape': list(shape), 'data_offsets': [offset, end]}
        offset = end
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)
    with open(path, 'wb') as file:
        file.write(struct.pack('<Q', len(text)) + text)
        for name, dtype, shape in entries:
            generator = numpy.random.Generator(
                numpy.random.SFC64([seed, zlib.crc32(name.encode())]))
            if dtype == 'F8_E4M3':
                write_codes(file, generator, math.prod(shape))
            elif name.endswith(SCALE_SUFFIX):
                write_scales(file, generator, dtype, shape)
            else:
                mid.write_tensor(file, name, shape, seed)


def split_files(entries):
    files, used = [[]], 0
    for entry in entries:
        size = byte_size(*entry[1:])
        if used + size > FILE_BYTES_MAX:
            files.append([])
            used = 0
        files[-1].append(entry)
        used += size
    return files


def write_model(out, seed, ue8m0):
    out.mkdir(parents=True, exist_ok=True)
    files = split_files(tensors(ue8m0))
    weight_map, total = {}, 0
    for index, entries in enumerate(files, 1):
        name = f'model-{index:05}-of-{len(files):05}.safetensors'
        write_file(out / name, entries, seed)
        weight_map.update({entry[0]: name for entry in entries})
        total += sum(byte_size(*entry[1:]) for entry in entries)
        print(f'{out / name}: {len(entries)} tensors', flush=True)
    index = {'metadata': {'total_size': total, 'seed': seed}, 'weight_map': weight_map}
    (out / 'model.safetensors.index.json').write_text(json.dumps(index, indent=1))
    for name in mid.TOKENIZER_FILES:
        shutil.copyfile(places.HF_MODELS['demo'] / name, out / name)
    # Last: a directory with a config is whole.
    (out / 'config.json').write_text(json.dumps(CONFIG, indent=2) + '\n')
    print(f'{out}: {total / 1e9:.2f} GB, seed {seed}')


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--out', type=pathlib.Path, required=True)
    parser.add_argument('--seed', type=int, default=1234)
    parser.add_argument('--ue8m0', action='store_true')
    arguments = parser.parse_args()
    if (arguments.out / 'config.json').exists():
        print(f'{arguments.out} is there already')
        return 0
    write_model(arguments.out, arguments.seed, arguments.ue8m0)
    return 0


if __name__ == '__main__':
    sys.exit(main())
