"""Tests of the copies of checkpoints; where there is no numpy, table.py cannot run either and they are left out."""
import json
import pathlib
import struct
import sys

import pytest

numpy = pytest.importorskip('numpy')

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import checkpoint_copies  # noqa: E402


def test_every_e4m3_value_encodes_to_its_own_code():
    values = checkpoint_copies.e4m3_values()
    assert values[-1] == checkpoint_copies.FP8_MAX
    codes = numpy.arange(127)
    assert (checkpoint_copies.encode_e4m3(values) == codes).all()
    assert (checkpoint_copies.encode_e4m3(-values) == codes + 128).all()


def test_halfway_goes_to_the_even_code():
    values = checkpoint_copies.e4m3_values()
    middles = (values[1:] + values[:-1]) / 2
    assert (checkpoint_copies.encode_e4m3(middles) % 2 == 0).all()


def test_fp8_blocks_at_the_edge_have_scales_of_their_own():
    matrix = numpy.zeros((130, 200), numpy.float32)
    matrix[129, 199] = 448 * 3
    codes, scales = checkpoint_copies.quantise_fp8(matrix)
    assert scales.shape == (2, 2) and scales[1, 1] == 3 and scales[0, 0] == 1
    assert codes[129, 199] == 126 and codes[0, 0] == 0


def make_checkpoint(folder):
    folder.mkdir()
    bf16 = numpy.array([0x3F80, 0xC000, 0x0000, 0x4040], '<u2').tobytes()  # 1, -2, 0, 3
    checkpoint_copies.write_tensors(folder / 'model.safetensors', [
        ('model.embed_tokens.weight', 'BF16', [2, 2], bf16), ('a.q_proj.weight', 'BF16', [2, 2], bf16),
        ('model.norm.weight', 'BF16', [4], bf16)])
    (folder / 'config.json').write_text('{"torch_dtype": "bfloat16", "hidden_size": 2}')


def test_an_f32_copy_holds_the_same_values(tmp_path):
    make_checkpoint(tmp_path / 'a')
    checkpoint_copies.copy(tmp_path / 'a', tmp_path / 'b', 'f32')
    for _, dtype, _, data in checkpoint_copies.read_tensors(tmp_path / 'b/model.safetensors'):
        assert dtype == 'F32' and struct.unpack('<4f', data) == (1, -2, 0, 3)
    assert json.loads((tmp_path / 'b/config.json').read_text()) == {'torch_dtype': 'float32', 'hidden_size': 2}


def test_an_fp8_copy_quantises_projections_only(tmp_path):
    make_checkpoint(tmp_path / 'a')
    checkpoint_copies.copy(tmp_path / 'a', tmp_path / 'b', 'fp8')
    found = {name: (dtype, shape) for name, dtype, shape, _
             in checkpoint_copies.read_tensors(tmp_path / 'b/model.safetensors')}
    assert found == {'model.embed_tokens.weight': ('BF16', [2, 2]), 'a.q_proj.weight': ('F8_E4M3', [2, 2]),
                     'a.q_proj.weight_scale_inv': ('F32', [1, 1]), 'model.norm.weight': ('BF16', [4])}
    assert 'quantization_config' in json.loads((tmp_path / 'b/config.json').read_text())
