"""Writes a model in Hugging Face layout, with the tensor names of the published DeepSeek-V3."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

import data
from model import CausalLM

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ '<|assistant|>\\n' + message['content'] + eos_token }}"
    "{% else %}"
    "{{ '<|' + message['role'] + '|>\\n' + message['content'] + '\\n' }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)


def tensors(model: CausalLM) -> dict[str, torch.Tensor]:
    out = {}
    for name, value in model.state_dict().items():
        if ".experts." in name:  # model.layers.N.mlp.experts.gate_proj: [experts, rows, cols]
            prefix, matrix = name.rsplit(".", 1)
            for i, expert in enumerate(value):
                out[f"{prefix}.{i}.{matrix}.weight"] = expert.to(torch.bfloat16).clone()
        elif name.endswith("e_score_correction_bias"):
            out[name] = value.float().clone()
        else:
            out[name] = value.to(torch.bfloat16).clone()
    return out


def config(model: CausalLM) -> dict:
    s = dataclasses.asdict(model.shape)
    return {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        **s,
        "num_key_value_heads": s["num_attention_heads"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": data.BOS,
        "eos_token_id": data.EOS,
        "pad_token_id": data.PAD,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "moe_layer_freq": 1,
        "norm_topk_prob": True,
        "num_nextn_predict_layers": 0,
        "rope_interleave": True,
        "rope_scaling": None,
        "scoring_func": "sigmoid",
        "tie_word_embeddings": False,
        "topk_method": "noaux_tc",
        "torch_dtype": "bfloat16",
        "use_cache": True,
    }


def write_json(path: Path, value) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def write_tokenizer(tokenizer, out: Path, length_max: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"))
    write_json(out / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<|bos|>",
        "eos_token": "<|eos|>",
        "pad_token": "<|pad|>",
        "additional_special_tokens": ["<|system|>", "<|user|>", "<|assistant|>"],
        "clean_up_tokenization_spaces": False,
        "model_max_length": length_max,
        "chat_template": CHAT_TEMPLATE,
    })


def write_model(model: CausalLM, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors(model), out / "model.safetensors.tmp", metadata={"format": "pt"})
    (out / "model.safetensors.tmp").replace(out / "model.safetensors")
    write_json(out / "config.json", config(model))
    write_json(out / "generation_config.json", {
        "bos_token_id": data.BOS,
        "eos_token_id": data.EOS,
        "pad_token_id": data.PAD,
        "do_sample": True,
        "temperature": 0.3,
        "top_p": 0.95,
        "max_new_tokens": 128,
    })
