"""The corpus: the running Python's standard library, a byte-level BPE, and packed token streams."""

from __future__ import annotations

import ast
import random
import sysconfig
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

# Their order fixes the ids: bos 0, eos 1, pad 2, ...
SPECIAL_TOKENS = ["<|bos|>", "<|eos|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>"]
BOS, EOS, PAD, SYSTEM, USER, ASSISTANT = range(6)

# Whole modules that neither the tokenizer nor the model sees.
HELD_OUT = {
    "calendar.py", "configparser.py", "csv.py", "fractions.py", "graphlib.py", "heapq.py", "json",
    "mailbox.py", "netrc.py", "plistlib.py", "queue.py", "rlcompleter.py", "sched.py",
    "selectors.py", "shelve.py", "shlex.py", "statistics.py", "string.py", "tabnanny.py",
    "textwrap.py", "trace.py", "wsgiref", "zipapp.py",
}
# Not the library's own code, tables rather than code, or syntax the running Python rejects.
LEFT_OUT = {"site-packages", "__pycache__", "lib2to3", "pydoc_data", "encodings", "idlelib",
            "turtledemo", "ensurepip"}
# Tests of the held-out modules, and bulky tables of numbers.
TEST_PREFIX_LEFT_OUT = ("test_json", "cjkencodings", "decimaltestdata")


def library_files(root: Path | None = None) -> tuple[dict[str, str], dict[str, str]]:
    """(training, held-out): path below the library -> text. Only files that parse."""
    root = root or Path(sysconfig.get_paths()["stdlib"])
    held_tests = {f"test_{Path(name).stem}.py" for name in HELD_OUT}
    train, held = {}, {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if LEFT_OUT & set(parts):
            continue
        if parts[0] == "test" and (parts[-1] in held_tests or any(
                p.startswith(TEST_PREFIX_LEFT_OUT) for p in parts)):
            continue
        try:
            text = path.read_text(encoding="utf-8")
            ast.parse(text)
        except (UnicodeDecodeError, SyntaxError, ValueError):
            continue
        if not text.strip() or "\r" in text:
            continue
        (held if parts[0] in HELD_OUT else train)["/".join(parts)] = text
    return train, held


def train_tokenizer(texts: list[str], vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=SPECIAL_TOKENS, show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|bos|> $A", pair="<|bos|> $A $B", special_tokens=[("<|bos|>", BOS)])
    return tokenizer


def chat_pairs(text: str) -> list[tuple[str, str]]:
    """(request, function source) for the documented functions of one file."""
    lines, pairs = text.splitlines(keepends=True), []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef) or node.decorator_list:
            continue
        doc = ast.get_docstring(node)
        if not doc or not 4 <= node.end_lineno - node.lineno <= 30:
            continue
        indent = node.col_offset
        body = "".join(line[indent:] if line[:indent].isspace() or not indent else line
                       for line in lines[node.lineno - 1:node.end_lineno])
        first = " ".join(doc.split("\n\n")[0].split())
        pairs.append((f"Write a Python function {node.name}: {first}", body.rstrip() + "\n"))
    return pairs


class Corpus:
    """Token arrays of all documents, and seeded epochs of fixed-length rows over them."""

    def __init__(self, tokenizer: Tokenizer, files: dict[str, str], seed: int):
        self.rng = random.Random(seed)
        names = sorted(files)
        encoded = tokenizer.encode_batch([files[n] for n in names], add_special_tokens=False)
        # Library code is seen twice as often as its tests.
        self.documents = []
        for name, e in zip(names, encoded):
            document = np.array([BOS, *e.ids, EOS], dtype=np.uint16)
            is_test = name.startswith("test/") or "/test/" in name
            self.documents += [document] * (1 if is_test else 2)
        self.file_tokens = sum(len(d) for d in self.documents)
        pairs = [p for n in names for p in chat_pairs(files[n])]
        asked = tokenizer.encode_batch(
            ["\n" + a + "\n" for a, _ in pairs], add_special_tokens=False)
        answered = tokenizer.encode_batch(["\n" + b for _, b in pairs], add_special_tokens=False)
        for a, b in zip(asked, answered):
            self.documents.append(
                np.array([BOS, USER, *a.ids, ASSISTANT, *b.ids, EOS], dtype=np.uint16))
        self.token_count = sum(len(d) for d in self.documents)
        self.pending, self.epochs = {}, 0

    def rows(self, count: int, length: int) -> np.ndarray:
        """[count, length + 1]. Each row is bos, then a window of the shuffled stream."""
        pending = self.pending.setdefault(length, [])
        if len(pending) < count:
            self.rng.shuffle(self.documents)
            stream = np.concatenate(self.documents)
            stream = stream[self.rng.randrange(length):]
            windows = stream[:len(stream) // length * length].reshape(-1, length)
            fresh = list(windows)
            self.rng.shuffle(fresh)
            pending += fresh
            self.epochs += 1
        taken = [pending.pop() for _ in range(count)]
        return np.stack([np.concatenate([[BOS], w]) for w in taken]).astype(np.int64)


def held_out_rows(tokenizer: Tokenizer, files: dict[str, str], length: int, count: int, seed: int):
    stream = np.concatenate([
        np.array([BOS, *tokenizer.encode(files[n], add_special_tokens=False).ids, EOS])
        for n in sorted(files)])
    windows = stream[:len(stream) // length * length].reshape(-1, length)
    picked = random.Random(seed).sample(range(len(windows)), min(count, len(windows)))
    return np.stack([np.concatenate([[BOS], windows[i]]) for i in sorted(picked)])
