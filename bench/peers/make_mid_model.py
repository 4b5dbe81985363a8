#!/usr/bin/env python3
"""Writes the mid-size benchmark model: DeepSeek-V3 layout, random BF16 weights, 2.47 G parameters.

  bench/peers/make_mid_model.py [--out DIR] [--seed N]       (default: build/bench-models/mid)

The latent attention has DeepSeek-V3's own widths; hidden size, layers and experts are small enough
for two cores. Weights have standard deviation 1/sqrt(inputs), so that every layer adds to the
residual stream and the gate's choices change from token to token; each tensor has a generator of
its own, seeded by the seed and its name. Tensors are drawn and written a piece at a time: memory
stays under 200 MB. The tokenizer is the demo model's. Needs numpy.
"""
import argparse
import json
import math
import shutil
import struct
import sys
import zlib

import environment
import places

environment.run_where_numpy_is()
import numpy  # noqa: E402

CONFIG = {
    'architectures': ['DeepseekV3ForCausalLM'], 'model_type': 'deepseek_v3', 'torch_dtype': 'bfloat16',
    'vocab_size': 4096, 'hidden_size': 1024, 'intermediate_size': 3072, 'moe_intermediate_size': 512,
    'num_hidden_layers': 24, 'first_k_dense_replace': 1, 'moe_layer_freq': 1,
    'num_attention_heads': 8, 'num_key_value_heads': 8, 'q_lora_rank': 512, 'kv_lora_rank': 512,
    'qk_nope_head_dim': 128, 'qk_rope_head_dim': 64, 'v_head_dim': 128, 'rope_interleave': True,
    'n_routed_experts': 64, 'n_shared_experts': 1, 'num_experts_per_tok': 6, 'n_group': 8,
    'topk_group': 4, 'norm_topk_prob': True, 'routed_scaling_factor': 2.5, 'scoring_func': 'sigmoid',
    'topk_method': 'noaux_tc', 'hidden_act': 'silu', 'rms_norm_eps': 1e-06, 'rope_theta': 10000.0,
    'rope_scaling': {'type': 'yarn', 'factor': 40.0, 'original_max_position_embeddings': 4096,
                     'beta_fast': 32.0, 'beta_slow': 1.0, 'mscale': 1.0, 'mscale_all_dim': 1.0},
    'max_position_embeddings': 163840, 'tie_word_embeddings': False, 'attention_bias': False,
    'attention_dropout': 0.0, 'num_nextn_predict_layers': 0, 'initializer_range': 0.02,
    'bos_token_id': 0, 'eos_token_id': 1, 'pad_token_id': 2, 'use_cache': True,
}
TOKENIZER_FILES = ('tokenizer.json', 'tokenizer_config.json', 'generation_config.json')
FILE_BYTES_MAX = 1_500_000_000
PIECE_VALUES = 1 << 22


def attention_tensors(config, prefix):
    hidden, heads = config['hidden_size'], config['num_attention_heads']
    nope, rope, value = config['qk_nope_head_dim'], config['qk_rope_head_dim'], config['v_head_dim']
    q_rank, kv_rank = config['q_lora_rank'], config['kv_lora_rank']
    yield f'{prefix}.q_a_proj.weight', (q_rank, hidden)
    yield f'{prefix}.q_a_layernorm.weight', (q_rank,)
    yield f'{prefix}.q_b_proj.weight', (heads * (nope + rope), q_rank)
    yield f'{prefix}.kv_a_proj_with_mqa.weight', (kv_rank + rope, hidden)
    yield f'{prefix}.kv_a_layernorm.weight', (kv_rank,)
    yield f'{prefix}.kv_b_proj.weight', (heads * (nope + value), kv_rank)
    yield f'{prefix}.o_proj.weight', (hidden, heads * value)


def mlp_tensors(config, prefix, width):
    hidden = config['hidden_size']
    yield f'{prefix}.gate_proj.weight', (width, hidden)
    yield f'{prefix}.up_proj.weight', (width, hidden)
    yield f'{prefix}.down_proj.weight', (hidden, width)


def tensors(config):
    """(name, shape) of every tensor, in the order of the files."""
    hidden, experts = config['hidden_size'], config['n_routed_experts']
    width = config['moe_intermediate_size']
    yield 'model.embed_tokens.weight', (config['vocab_size'], hidden)
    for layer in range(config['num_hidden_layers']):
        prefix = f'model.layers.{layer}'
        yield f'{prefix}.input_layernorm.weight', (hidden,)
        yield from attention_tensors(config, f'{prefix}.self_attn')
        yield f'{prefix}.post_attention_layernorm.weight', (hidden,)
        if layer < config['first_k_dense_replace']:
            yield from mlp_tensors(config, f'{prefix}.mlp', config['intermediate_size'])
            continue
        yield f'{prefix}.mlp.gate.weight', (experts, hidden)
        yield f'{prefix}.mlp.gate.e_score_correction_bias', (experts,)
        shared = width * config['n_shared_experts']
        yield from mlp_tensors(config, f'{prefix}.mlp.shared_experts', shared)
        for expert in range(experts):
            yield from mlp_tensors(config, f'{prefix}.mlp.experts.{expert}', width)
    yield 'model.norm.weight', (hidden,)
    yield 'lm_head.weight', (config['vocab_size'], hidden)


def is_f32(name):
    return name.endswith('e_score_correction_bias')


def tensor_bytes(name, shape):
    return math.prod(shape) * (4 if is_f32(name) else 2)


def mean_and_deviation(name, shape):
    if is_f32(name):
        return 0.0, 0.02
    if name.endswith('norm.weight'):
        return 1.0, 0.1
    if name == 'model.embed_tokens.weight':
        return 0.0, 1.0
    if name == 'lm_head.weight':
        return 0.0, 3 / math.sqrt(shape[-1])
    return 0.0, 1 / math.sqrt(shape[-1])


def to_bf16(values):
    """Nearest BF16, ties to even, as 16-bit words."""
    bits = values.view(numpy.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype('<u2')


def write_tensor(file, name, shape, seed):
    generator = numpy.random.Generator(numpy.random.SFC64([seed, zlib.crc32(name.encode())]))
    mean, deviation = mean_and_deviation(name, shape)
    left = math.prod(shape)
    while left > 0:
        count = min(left, PIECE_VALUES)
        values = generator.standard_normal(count, dtype=numpy.float32)
        values *= numpy.float32(deviation)
        values += numpy.float32(mean)
        file.write((values.astype('<f4') if is_f32(name) else to_bf16(values)).tobytes())
        left -= count


def split_files(config):
    files, used = [[]], 0
    for name, shape in tensors(config):
        if used + tensor_bytes(name, shape) > FILE_BYTES_MAX:
            files.append([])
            used = 0
        files[-1].append((name, shape))
        used += tensor_bytes(name, shape)
    return files


def write_file(path, named_shapes, seed):
    header, offset = {'__metadata__': {'format': 'pt'}}, 0
    for name, shape in named_shapes:
        end = offset + tensor_bytes(name, shape)
        header[name] = {'dtype': 'F32' if is_f32(name) else 'BF16', 'shape': list(shape),
                        'data_offsets': [offset, end]}
        offset = end
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)
    with open(path, 'wb') as file:
        file.write(struct.pack('<Q', len(text)) + text)
        for name, shape in named_shapes:
            write_tensor(file, name, shape, seed)


def write_model(out, seed):
    out.mkdir(parents=True, exist_ok=True)
    files = split_files(CONFIG)
    weight_map, total = {}, 0
    for index, named_shapes in enumerate(files, 1):
        name = f'model-{index:05}-of-{len(files):05}.safetensors'
        write_file(out / name, named_shapes, seed)
        weight_map.update({tensor: name for tensor, _ in named_shapes})
        total += sum(tensor_bytes(*named_shape) for named_shape in named_shapes)
        print(f'{out / name}: {len(named_shapes)} tensors', flush=True)
    index = {'metadata': {'total_size': total, 'seed': seed}, 'weight_map': weight_map}
    (out / 'model.safetensors.index.json').write_text(json.dumps(index, indent=1))
    for name in TOKENIZER_FILES:
        shutil.copyfile(places.HF_MODELS['demo'] / name, out / name)
    # Last: a directory with a config is whole.
    (out / 'config.json').write_text(json.dumps(CONFIG, indent=2) + '\n')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--out', type=places.pathlib.Path, default=places.HF_MODELS['mid'])
    parser.add_argument('--seed', type=int, default=1234)
    arguments = parser.parse_args()
    if (arguments.out / 'config.json').exists():
        print(f'{arguments.out} is there already')
        return 0
    write_model(arguments.out, arguments.seed)
    count = sum(math.prod(shape) for _, shape in tensors(CONFIG))
    print(f'{arguments.out}: {count / 1e6:.1f} M parameters, seed {arguments.seed}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
