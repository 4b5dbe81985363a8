"""Makes tests/conformance/goldens with transformers' DeepseekV3ForCausalLM.

    python tests/conformance/make_goldens.py [NAME ...]

For each tiny random checkpoint: config.json and model.safetensors as save_pretrained writes them, and
  golden.json         prompt and continuation token ids, BF16 figures of the reference itself
  golden.safetensors  "logits" F32 [tokens, vocab] of every position,
                      "experts" I32 [MoE layers, tokens, top_k] as the reference's gate chose them.
The continuation is the reference's own greedy choice. "bf16" holds the mean KL divergence of the
reference's own BF16 run (weights, activations and all; the correction bias stays F32) from its F32
run over all positions: with its own expert choices, and with the F32 run's choices forced on its gate.

The checkpoints named fp8-... are written as DeepSeek ships FP8: projections and experts in e4m3 with a scale
per 128 x 128 block, all else in BF16. The reference there runs on the weights that codes and scales give,
in F32, or rounded to BF16 for its BF16 run.
"""

import json
import pathlib
import shutil
import sys

import torch
from safetensors.torch import load_file, save_file
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM
from transformers.models.deepseek_v3 import modeling_deepseek_v3 as modeling

GOLDENS = pathlib.Path(__file__).resolve().parent / "goldens"
PROMPT_TOKENS = 32
DECODE_TOKENS = 64

BASE = dict(
    vocab_size=96, hidden_size=48, intermediate_size=64, moe_intermediate_size=16, num_hidden_layers=3,
    num_attention_heads=4, num_key_value_heads=4, n_shared_experts=1, n_routed_experts=8,
    num_experts_per_tok=3, n_group=4, topk_group=2, first_k_dense_replace=1, routed_scaling_factor=1.5,
    norm_topk_prob=True, q_lora_rank=24, kv_lora_rank=16, qk_nope_head_dim=16, qk_rope_head_dim=8,
    v_head_dim=12, max_position_embeddings=512, tie_word_embeddings=False, attention_bias=False,
    num_nextn_predict_layers=0, pad_token_id=None, bos_token_id=None, eos_token_id=None,
    rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
)

# Blocks of 128 with ragged edges in both directions, and as few weights as that allows.
RAGGED = dict(hidden_size=144, intermediate_size=136, moe_intermediate_size=136, num_hidden_layers=2,
              n_routed_experts=4, n_group=2, topk_group=1, num_experts_per_tok=2, q_lora_rank=40,
              kv_lora_rank=24, num_attention_heads=6, num_key_value_heads=6)
BLOCK = 128

# What differs from BASE. "bias" is the spread of the correction bias around "bias_mean".
CASES = {
    "base": dict(),
    "plain-q-one-group": dict(q_lora_rank=None, n_group=1, topk_group=1, num_experts_per_tok=2,
                              n_shared_experts=2),
    "unnormalised": dict(norm_topk_prob=False, routed_scaling_factor=2.5, rms_norm_eps=1e-5,
                         rope_parameters={"rope_type": "default", "rope_theta": 500.0}),
    "yarn": dict(max_position_embeddings=640, q_lora_rank=None,
                 rope_parameters={"rope_type": "yarn", "rope_theta": 10000.0, "factor": 40.0,
                                  "original_max_position_embeddings": 16, "beta_fast": 32.0,
                                  "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0}),
    "yarn-mscale": dict(max_position_embeddings=256, qk_rope_head_dim=16, rope_interleave=False,
                        rope_parameters={"rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0,
                                         "original_max_position_embeddings": 32, "beta_fast": 4.0,
                                         "beta_slow": 1.0, "mscale": 0.707, "mscale_all_dim": 1.2}),
    "tied-biased": dict(tie_word_embeddings=True, attention_bias=True, num_hidden_layers=4,
                        n_routed_experts=12, n_group=3, topk_group=2, num_experts_per_tok=4),
    "negative-bias": dict(bias_mean=-1.5, bias=0.3, n_routed_experts=16, n_group=8, topk_group=3,
                          num_experts_per_tok=4, first_k_dense_replace=0, num_hidden_layers=2),
    "fp8-f32-scales": dict(fp8="F32", **RAGGED),
    "fp8-ue8m0-scales": dict(fp8="F8_E8M0", **RAGGED),
}


def build(name, changes):
    changes = dict(changes)
    bias, bias_mean = changes.pop("bias", 0.15), changes.pop("bias_mean", 0.0)
    config = DeepseekV3Config(**{**BASE, **changes}, attn_implementation="eager")
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    model = DeepseekV3ForCausalLM(config).eval()

    def normal(shape, sigma):
        return torch.randn(shape, generator=generator) * sigma

    with torch.no_grad():
        for key, tensor in sorted(model.state_dict().items()):
            if key == "lm_head.weight" and config.tie_word_embeddings:
                continue
            if key.endswith("e_score_correction_bias"):
                value = bias_mean + normal(tensor.shape, bias)
            elif key.endswith("norm.weight"):
                value = 1.0 + normal(tensor.shape, 0.2)
            elif key.endswith(".bias"):
                value = normal(tensor.shape, 0.2)
            elif key == "model.embed_tokens.weight":
                value = normal(tensor.shape, 1.0 if not config.tie_word_embeddings else 0.3)
            elif key == "lm_head.weight":
                value = normal(tensor.shape, 2.0 * tensor.shape[-1] ** -0.5)
            else:
                value = normal(tensor.shape, 1.3 * tensor.shape[-1] ** -0.5)
            tensor.copy_(value)
    return model


class Gate:
    """Records the expert choice of every gate call, or forces a recorded one."""

    def __init__(self, model):
        self.routers = [m for m in model.modules() if isinstance(m, modeling.DeepseekV3TopkRouter)]
        self.chosen = []
        self.forced = None
        for layer, router in enumerate(self.routers):
            router.forward = self.wrap(layer, router, router.forward)

    def wrap(self, layer, router, original):
        def forward(hidden_states):
            logits, weights, indices = original(hidden_states)
            if self.forced is not None:
                indices = self.forced[layer]
                weights = logits.sigmoid().gather(1, indices)
                if router.norm_topk_prob:
                    weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
                weights = weights * router.routed_scaling_factor
            self.chosen.append(indices)
            return logits, weights, indices

        return forward

    def run(self, model, tokens, forced=None):
        self.chosen, self.forced = [], forced
        with torch.no_grad():
            logits = model(torch.tensor([tokens]), use_cache=False).logits[0].float()
        return logits, torch.stack(self.chosen)


def to_fp8(weight, scale_dtype):
    """Codes and scales of a matrix, and the F32 weights that they give."""
    rows, columns = weight.shape
    padded = torch.nn.functional.pad(weight, (0, -columns % BLOCK, 0, -rows % BLOCK))
    blocks = padded.reshape(padded.shape[0] // BLOCK, BLOCK, -1, BLOCK)
    scales = blocks.abs().amax(dim=(1, 3)) / 448.0
    if scale_dtype == "F8_E8M0":
        scales = torch.exp2(scales.log2().ceil()).to(torch.float8_e8m0fnu)
    spread = scales.float()[:, None, :, None]
    codes = (blocks / spread).to(torch.float8_e4m3fn)
    whole = (codes.float() * spread).reshape(padded.shape)[:rows, :columns].contiguous()
    return codes.reshape(padded.shape)[:rows, :columns].contiguous(), scales, whole


def quantise(directory, scale_dtype):
    """Rewrites a saved model with weights that FP8 can hold; returns its FP8 form to be saved later."""
    path = directory / "model.safetensors"
    stored, plain = {}, {}
    for name, tensor in load_file(path).items():
        if name.endswith("_proj.weight") or name.endswith("kv_a_proj_with_mqa.weight"):
            stored[name], stored[name + "_scale_inv"], plain[name] = to_fp8(tensor, scale_dtype)
        else:
            bias = name.endswith("e_score_correction_bias")
            stored[name] = tensor if bias else tensor.bfloat16()
            plain[name] = stored[name].float()
    save_file(plain, path, metadata={"format": "pt"})
    return stored


def save_fp8(directory, stored):
    save_file(stored, directory / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((directory / "config.json").read_text())
    config["dtype"] = "bfloat16"
    config["quantization_config"] = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
                                     "weight_block_size": [BLOCK, BLOCK]}
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def mean_kl(reference, other):
    p, q = reference.log_softmax(-1), other.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1).mean().item()


def make(name, changes):
    directory = GOLDENS / name
    shutil.rmtree(directory, ignore_errors=True)
    scale_dtype = changes.get("fp8")
    model = build(name, {key: value for key, value in changes.items() if key != "fp8"})
    model.save_pretrained(directory)
    if scale_dtype is not None:
        fp8 = quantise(directory, scale_dtype)
        model = DeepseekV3ForCausalLM.from_pretrained(directory, attn_implementation="eager").float().eval()
    (directory / "generation_config.json").unlink(missing_ok=True)
    vocab = model.config.vocab_size
    generator = torch.Generator().manual_seed(len(name))
    tokens = torch.randint(0, vocab, (PROMPT_TOKENS,), generator=generator).tolist()
    gate = Gate(model)
    for _ in range(DECODE_TOKENS):
        logits, _ = gate.run(model, tokens)
        tokens.append(logits[-1].argmax().item())
    logits, experts = gate.run(model, tokens)
    sigma = logits.std(dim=-1).mean().item()
    assert sigma >= 1.0, (name, sigma)
    save_file({"logits": logits.contiguous(), "experts": experts.int().contiguous()},
              directory / "golden.safetensors")

    bf16 = DeepseekV3ForCausalLM.from_pretrained(directory, dtype=torch.bfloat16,
                                                 attn_implementation="eager").eval()
    bf16_gate = Gate(bf16)
    assert all(r.e_score_correction_bias.dtype == torch.float32 for r in bf16_gate.routers)
    free, bf16_experts = bf16_gate.run(bf16, tokens)
    forced, _ = bf16_gate.run(bf16, tokens, forced=experts)
    differing = (experts.sort(-1)[0] != bf16_experts.sort(-1)[0]).any(-1).float().mean().item()
    figures = {"kl_free": mean_kl(logits, free), "kl_forced": mean_kl(logits, forced),
               "choices_that_differ": differing}
    golden = {"prompt": tokens[:PROMPT_TOKENS], "decoded": tokens[PROMPT_TOKENS:], "sigma": sigma,
              "bf16": figures}
    if scale_dtype is not None:
        save_fp8(directory, fp8)
    (directory / "golden.json").write_text(json.dumps(golden) + "\n")
    print(f"{name}: sigma {sigma:.2f}, bf16 {figures}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for case in sys.argv[1:] or CASES:
        make(case, CASES[case])
