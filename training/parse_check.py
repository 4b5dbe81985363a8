"""Counts how many of 100 completions of held-out function beginnings parse with `ast`.

A prompt is bos, up to 8 source lines before the function, its `def` header and its docstring if it
has one. A completion ends at eos, at the first statement outside the function, or after
--tokens-max tokens. Only in the last case the text may stop inside a statement, and then exactly
that last partial statement is dropped: an unfinished logical line, a compound header without a
body, decorators without a definition, or a `try` without its handlers. Text that no continuation
could repair is no partial statement and stays, to fail. A completion passes if the rest parses and
holds at least one generated statement besides a docstring.
"""

from __future__ import annotations

import argparse
import ast
import codeop
import dataclasses
import io
import json
import random
import tokenize
from pathlib import Path

import torch
from transformers import AutoTokenizer, DeepseekV3ForCausalLM

import data

CONTEXT_LINES = 8


@dataclasses.dataclass
class Beginning:
    where: str
    prompt: str
    function: str  # The prompt's part from `def` on, with its indentation.
    indent: int
    has_doc: bool


def beginnings(path: str, text: str) -> list[Beginning]:
    """The functions of one file with at least three lines of body besides the docstring."""
    lines, found = text.splitlines(), []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        has_doc = ast.get_docstring(node) is not None
        body = node.body[1:] if has_doc else node.body
        if not body or node.end_lineno - body[0].lineno < 2:
            continue
        if body[0].lineno <= node.lineno or (has_doc and node.body[0].lineno == node.lineno):
            continue
        header_end = node.body[0].end_lineno if has_doc else node.body[0].lineno - 1
        while not has_doc and (not lines[header_end - 1].strip()
                               or lines[header_end - 1].strip().startswith(("#", "@"))):
            header_end -= 1  # Comments before the body are not part of the header.
        if not has_doc and not lines[header_end - 1].split("#")[0].rstrip().endswith(":"):
            continue
        function = "\n".join(lines[node.lineno - 1:header_end])
        before = lines[max(0, node.lineno - 1 - CONTEXT_LINES):node.lineno - 1]
        found.append(Beginning(f"{path}:{node.lineno} {node.name}", "\n".join([*before, function]),
                               function, node.col_offset, has_doc))
    return found


def logical_lines(source: str) -> tuple[list[tuple[int, int, int, str, str]], str]:
    """[(first line, last line, column, first word, last token)], and the end's state.

    Lines count from 1. The state is "whole"; "open" if a string or bracket is unfinished: its text
    is not in the list; or "wrong" at a dedent to no outer level, which no more text repairs.
    """
    found, current = [], []
    try:
        for t in tokenize.generate_tokens(io.StringIO(source).readline):
            if t.type in (tokenize.INDENT, tokenize.DEDENT, tokenize.NL, tokenize.COMMENT,
                          tokenize.ENDMARKER):
                continue
            if t.type != tokenize.NEWLINE:
                current.append(t)
            elif current:
                found.append((current[0].start[0], current[-1].end[0], current[0].start[1],
                              current[0].string, current[-1].string))
                current = []
    except tokenize.TokenError:
        return found, "open"
    except IndentationError:
        return found, "wrong"
    return found, "open" if current else "whole"


def can_go_on(source: str) -> bool:
    """Whether an unfinished bracket or string could still be finished by more text.

    Not so if a syntax error stands before the last line, where the cut may have split a token.
    """
    flags = ast.PyCF_ONLY_AST | codeop.PyCF_ALLOW_INCOMPLETE_INPUT
    try:
        compile(source, "completion", "exec", flags)
    except SyntaxError as e:
        return e.msg == "incomplete input" or (e.lineno or 0) > source.count("\n")
    except ValueError:
        return False
    return True


def cut(source: str, indent: int, stopped: bool) -> str:
    """The function alone, without the last partial statement unless the model stopped by itself.

    `source` starts at a line that opens a block around the function.
    """
    lines = source.split("\n")
    logical, state = logical_lines(source)
    for at in logical[2:]:
        if at[2] <= indent:
            return "\n".join(lines[:at[0] - 1])  # The function ended: nothing is partial.
    if stopped or state == "wrong" or (state == "open" and not can_go_on(source)):
        return source
    if state == "whole" and not source.endswith("\n") and logical:
        logical.pop()  # Its text may go on.
    while logical and (logical[-1][4] == ":" or logical[-1][3] == "@"):
        logical.pop()
    open_try = None
    blocks: dict[int, tuple[str, int]] = {}
    for index, (_, _, column, word, _) in enumerate(logical):
        blocks = {c: b for c, b in blocks.items() if c < column}
        blocks[column] = (word, index)
    for column in sorted(blocks):
        word, index = blocks[column]
        if word == "try" and index < len(logical) - 1 and open_try is None:
            open_try = index
    if open_try is not None:
        logical = logical[:open_try]
        while logical and (logical[-1][4] == ":" or logical[-1][3] == "@"):
            logical.pop()
    return "\n".join(lines[:logical[-1][1]]) if logical else ""


def judge(begin: Beginning, completion: str, stopped: bool) -> tuple[bool, int, str]:
    """(passes, generated statements at any depth, the text that was parsed)."""
    wrapper = "if 1:\n" if begin.indent else "if 1: pass\n"
    text = cut(wrapper + begin.function + completion, begin.indent if begin.indent else 0, stopped)
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return False, 0, text
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    functions = [n for n in ast.walk(tree) if isinstance(n, kinds)]
    if not functions:
        return False, 0, text
    first = functions[0]
    body = first.body[1:] if ast.get_docstring(first) is not None else first.body
    count = sum(isinstance(n, ast.stmt) for b in body for n in ast.walk(b))
    return count > 0, count, text


@torch.no_grad()
def complete(model, tokenizer, prompts: list[str], args) -> list[tuple[str, bool]]:
    """(completion, whether the model ended it with eos) for each prompt."""
    out = [None] * len(prompts)
    encoded = [tokenizer(p)["input_ids"] for p in prompts]
    order = sorted(range(len(prompts)), key=lambda i: (len(encoded[i]), i))
    for start in range(0, len(order), 25):
        part = order[start:start + 25]
        width = max(len(encoded[i]) for i in part)
        ids = torch.tensor([[data.PAD] * (width - len(encoded[i])) + encoded[i] for i in part])
        starts = torch.tensor([[width - len(encoded[i])] for i in part])
        mask = (torch.arange(width) >= starts).long()
        sampling = (dict(do_sample=True, temperature=args.temperature, top_p=args.top_p, top_k=0)
                    if args.temperature > 0 else
                    dict(do_sample=False, temperature=None, top_p=None))
        new = model.generate(ids, attention_mask=mask, max_new_tokens=args.tokens_max, **sampling)
        for i, row in zip(part, new[:, width:].tolist()):
            stopped = data.EOS in row
            row = row[:row.index(data.EOS)] if stopped else row
            out[i] = (tokenizer.decode(row, skip_special_tokens=False), stopped)
    return out


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("folder", type=Path)
    p.add_argument("--count", type=int, default=100)
    p.add_argument("--tokens-max", type=int, default=96)
    p.add_argument("--temperature", type=float, default=0.3)
    p.add_argument("--top-p", type=float, default=0.95)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--prompt-tokens-max", type=int, default=384)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--json", type=Path, help="write the counts and every completion here")
    p.add_argument("--real", action="store_true", help="judge the files' own text instead")
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    _, held = data.library_files()
    tokenizer = AutoTokenizer.from_pretrained(args.folder)
    pool = [b for name in sorted(held) for b in beginnings(name, held[name])
            if len(tokenizer(b.prompt)["input_ids"]) <= args.prompt_tokens_max]
    picked = random.Random(args.seed).sample(pool, args.count)
    if args.real:
        results = []
        for b in picked:
            path, line = b.where.split(" ")[0].rsplit(":", 1)
            rest = "\n".join(held[path].split("\n")[int(line) - 1:])[len(b.function):]
            ids = tokenizer(rest, add_special_tokens=False)["input_ids"][:args.tokens_max]
            results.append((tokenizer.decode(ids), False))
    else:
        model = DeepseekV3ForCausalLM.from_pretrained(args.folder, dtype=torch.float32).eval()
        results = complete(model, tokenizer, [b.prompt for b in picked], args)
    rows = []
    for b, (text, stopped) in zip(picked, results):
        passes, count, parsed = judge(b, text, stopped)
        rows.append({"where": b.where, "passes": passes, "statements": count, "eos": stopped,
                     "completion": text, "parsed": parsed})
    passed = [r for r in rows if r["passes"]]
    summary = {
        "passed": len(passed), "of": len(rows), "pool": len(pool),
        "mean_statements_of_passed": round(
            sum(r["statements"] for r in passed) / max(1, len(passed)), 2),
        "with_at_least_3_statements": sum(r["statements"] >= 3 for r in passed),
        "tokens_max": args.tokens_max, "temperature": args.temperature, "top_p": args.top_p,
        "seed": args.seed,
    }
    print(json.dumps(summary))
    if args.json:
        args.json.write_text(json.dumps({"summary": summary, "completions": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
