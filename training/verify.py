"""Checks a saved model: tensor names and types, and that transformers computes the same logits."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, DeepseekV3ForCausalLM

import data
import export
from model import CausalLM, ModelShape

TEXT = "def normalize(path, sep='/'):\n    \"\"\"Collapse repeated separators.\"\"\"\n    parts = ["


def load(folder: Path) -> CausalLM:
    """Our model in float32 from the saved per-expert tensors."""
    config = json.loads((folder / "config.json").read_text())
    model = CausalLM(ModelShape(**{
        f.name: config[f.name] for f in dataclasses.fields(ModelShape)}))
    saved, state = load_file(folder / "model.safetensors"), model.state_dict()
    if set(saved) != set(export.tensors(model)):
        raise SystemExit("the saved tensor names are not those of the export")
    for name, value in state.items():
        if ".experts." in name:
            prefix, matrix = name.rsplit(".", 1)
            value.copy_(torch.stack([saved[f"{prefix}.{i}.{matrix}.weight"].float()
                                     for i in range(len(value))]))
        else:
            value.copy_(saved[name].float())
    return model.eval()


@torch.no_grad()
def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("folder", type=Path)
    folder = p.parse_args().folder
    ours = load(folder)
    theirs, info = DeepseekV3ForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True)
    theirs.eval()
    problems = {k: sorted(v) for k, v in info.items() if v}
    print("loading problems:", problems or "none")
    for name, value in load_file(folder / "model.safetensors").items():
        bias = name.endswith("e_score_correction_bias")
        assert value.dtype == (torch.float32 if bias else torch.bfloat16), (name, value.dtype)
        assert not bias or value.min() >= 0.0, "a negative bias parts the 0.0 and -inf masks"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(TEXT)["input_ids"]
    assert ids[0] == data.BOS and tokenizer.decode(ids, skip_special_tokens=True) == TEXT
    noise = torch.randint(6, 4096, (1, 600), generator=torch.Generator().manual_seed(1))
    tokens = torch.cat([torch.tensor([ids * 20])[:, :600], noise])
    a, b = ours(tokens), theirs(tokens).logits
    print(f"logits {tuple(a.shape)}: range {a.min():.2f}..{a.max():.2f}, "
          f"largest difference {(a - b).abs().max():.2e}, "
          f"same argmax {(a.argmax(-1) == b.argmax(-1)).float().mean():.4f}")
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True)
    print("chat prompt:", repr(chat))
    assert tokenizer(chat, add_special_tokens=False)["input_ids"][:2] == [data.BOS, data.USER]
    if problems or (a - b).abs().max() > 1e-3:
        raise SystemExit("verify failed")


if __name__ == "__main__":
    main()
