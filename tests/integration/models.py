"""Model directories made for a test: damaged copies of the demo model, and a tiny one with a tokenizer."""

import json
import shutil
import struct
from pathlib import Path

from fleet import DEMO_MODEL, ROOT

GOLDENS = ROOT / "tests" / "conformance" / "goldens"
WEIGHTS = "model.safetensors"


def link_demo(target, without=()):
    """A directory that has the demo model's files as links, but those named in `without`."""
    target.mkdir()
    for path in DEMO_MODEL.iterdir():
        if path.name not in without:
            (target / path.name).symlink_to(path)
    return target


def replace_file(target, name, content):
    link_demo(target, without=[name])
    (target / name).write_bytes(content)
    return target


def change_config(target, **fields):
    config = json.loads((DEMO_MODEL / "config.json").read_text())
    return replace_file(target, "config.json", json.dumps(config | fields).encode())


def change_header(target, change):
    """The demo's weights with another safetensors header; `change` edits the parsed one."""
    data = (DEMO_MODEL / WEIGHTS).read_bytes()
    (size,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    return replace_file(target, WEIGHTS, struct.pack("<Q", len(text)) + text + data[8 + size :])


def with_huge_header_length(target):
    data = (DEMO_MODEL / WEIGHTS).read_bytes()
    return replace_file(target, WEIGHTS, struct.pack("<Q", 2**62) + data[8:])


def with_truncated_weights(target):
    data = (DEMO_MODEL / WEIGHTS).read_bytes()
    return replace_file(target, WEIGHTS, data[: len(data) // 2])


def copy_golden(target, name="base"):
    """A random checkpoint of the conformance tests as it is: weights and config, no text files."""
    target.mkdir()
    for file in ("config.json", WEIGHTS):
        shutil.copy(GOLDENS / name / file, target / file)
    return target


SPECIAL_TOKENS = ["<|bos|>", "<|eos|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>"]
# Space and newline as the byte-level alphabet writes them, then what a prompt of the tests needs.
ALPHABET = "ĠĊabcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,!?'-:;|<>"


def add_tiny_tokenizer(target):
    """Gives a checkpoint a byte-level tokenizer in the demo's format: single characters only."""
    vocab_size = json.loads((target / "config.json").read_text())["vocab_size"]
    tokens = (SPECIAL_TOKENS + list(ALPHABET))[:vocab_size]
    tokenizer = json.loads((DEMO_MODEL / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] = {token: index for index, token in enumerate(tokens)}
    tokenizer["model"]["merges"] = []
    (target / "tokenizer.json").write_text(json.dumps(tokenizer))
    shutil.copy(DEMO_MODEL / "tokenizer_config.json", Path(target) / "tokenizer_config.json")
    return target
