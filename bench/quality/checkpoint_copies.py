"""Copies of a BF16 checkpoint in formats that `switchyard-quality --weights` does not make: F32, and FP8 e4m3 with
one F32 scale per 128 x 128 block."""
import json
import pathlib
import struct

import numpy

FP8_BLOCK = 128
FP8_MAX = 448.0
FP8_LEFT_ALONE = ('embed_tokens', 'lm_head', 'mlp.gate.', 'norm')
FP8_CONFIG = {'quant_method': 'fp8', 'fmt': 'e4m3', 'activation_scheme': 'dynamic',
              'weight_block_size': [FP8_BLOCK, FP8_BLOCK]}


def read_tensors(path):
    """Yields (name, dtype, shape, bytes) of a safetensors file."""
    data = path.read_bytes()
    size, = struct.unpack('<Q', data[:8])
    header = json.loads(data[8:8 + size])
    for name, entry in header.items():
        if name != '__metadata__':
            begin, end = entry['data_offsets']
            yield name, entry['dtype'], entry['shape'], data[8 + size + begin:8 + size + end]


def write_tensors(path, tensors):
    header, parts, at = {}, [], 0
    for name, dtype, shape, data in tensors:
        header[name] = {'dtype': dtype, 'shape': shape, 'data_offsets': [at, at + len(data)]}
        parts.append(data)
        at += len(data)
    text = json.dumps(header).encode()
    text += b' ' * (-len(text) % 8)
    path.write_bytes(struct.pack('<Q', len(text)) + text + b''.join(parts))


def widen(data):
    """F32 values of BF16 bytes."""
    return (numpy.frombuffer(data, '<u2').astype('<u4') << 16).view('<f4')


def e4m3_values():
    """Values of the codes 0 to 126, ascending; 127 is no number."""
    codes = numpy.arange(127)
    exponent, mantissa = codes >> 3, codes & 7
    return numpy.where(exponent == 0, mantissa * 2.0 ** -9, (1 + mantissa / 8) * 2.0 ** (exponent - 7.0))


def encode_e4m3(values):
    """The nearest codes; of two equally near ones the even code."""
    table = e4m3_values()
    magnitude = numpy.minimum(numpy.abs(values).astype(numpy.float64), FP8_MAX)
    upper = numpy.searchsorted(table, magnitude).clip(1, len(table) - 1)
    lower = upper - 1
    below, above = magnitude - table[lower], table[upper] - magnitude
    code = numpy.where((below < above) | ((below == above) & (lower % 2 == 0)), lower, upper)
    return (code | (numpy.signbit(values) << 7)).astype(numpy.uint8)


def quantise_fp8(matrix):
    """(codes, scales [block rows, block columns]) of an F32 matrix."""
    rows, columns = matrix.shape
    grid = (-(-rows // FP8_BLOCK), -(-columns // FP8_BLOCK))
    scales = numpy.ones(grid, '<f4')
    codes = numpy.empty(matrix.shape, numpy.uint8)
    for i in range(grid[0]):
        for j in range(grid[1]):
            block = (slice(i * FP8_BLOCK, (i + 1) * FP8_BLOCK), slice(j * FP8_BLOCK, (j + 1) * FP8_BLOCK))
            largest = numpy.abs(matrix[block]).max()
            if largest > 0:
                scales[i, j] = largest / FP8_MAX
            codes[block] = encode_e4m3(matrix[block] / scales[i, j])
    return codes, scales


def f32_tensors(tensors):
    for name, dtype, shape, data in tensors:
        yield (name, 'F32', shape, widen(data).tobytes()) if dtype == 'BF16' else (name, dtype, shape, data)


def fp8_tensors(tensors):
    for name, dtype, shape, data in tensors:
        if dtype != 'BF16' or len(shape) != 2 or any(part in name for part in FP8_LEFT_ALONE):
            yield name, dtype, shape, data
            continue
        codes, scales = quantise_fp8(widen(data).reshape(shape))
        yield name, 'F8_E4M3', shape, codes.tobytes()
        yield name + '_scale_inv', 'F32', list(scales.shape), scales.tobytes()


def copy(model_dir, out_dir, kind):
    """`kind` is 'f32' or 'fp8'. The checkpoint is one file, model.safetensors."""
    source, out = pathlib.Path(model_dir), pathlib.Path(out_dir)
    out.mkdir(parents=True)
    tensors = read_tensors(source / 'model.safetensors')
    write_tensors(out / 'model.safetensors', f32_tensors(tensors) if kind == 'f32' else fp8_tensors(tensors))
    config = json.loads((source / 'config.json').read_text(encoding='utf-8'))
    config.update({'torch_dtype': 'float32'} if kind == 'f32' else {'quantization_config': FP8_CONFIG})
    (out / 'config.json').write_text(json.dumps(config, indent=1), encoding='utf-8')
