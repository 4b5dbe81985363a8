"""Trains the demo model on the standard library's source and writes it in Hugging Face layout.

The budget is a step count (--steps, reproducible) or wall-clock minutes (--minutes, which made
the committed model). The learning rate follows the fraction of the budget that is spent, so a run
always ends decayed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from pathlib import Path

import numpy as np
import torch
import torch.multiprocessing
from tokenizers import Tokenizer

import data
import export
import optimizer
from model import CausalLM, ModelShape

BATCH_TOKENS = 4096


def parse_args() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--steps", type=int, default=0, help="budget in steps")
    p.add_argument("--minutes", type=float, default=0.0, help="budget in minutes, if no --steps")
    p.add_argument("--work", type=Path, help="checkpoint folder; a checkpoint there is resumed")
    p.add_argument("--checkpoint-minutes", type=float, default=5.0)
    p.add_argument("--seed", type=int, default=20261122)
    p.add_argument("--ranks", type=int, default=2, help="data-parallel processes of one thread")
    p.add_argument("--length", type=int, default=256)
    p.add_argument("--long-length", type=int, default=1024)
    p.add_argument("--long-fraction", type=float, default=0.12,
                   help="last part of the budget, trained on long rows")
    p.add_argument("--muon-lr", type=float, default=0.02)
    p.add_argument("--adam-lr", type=float, default=0.003)
    p.add_argument("--bias-rate", type=float, default=0.003)
    p.add_argument("--no-bf16", action="store_true")
    args = p.parse_args()
    if not args.steps and not args.minutes:
        p.error("one of --steps and --minutes is needed")
    return args


def rate(fraction: float) -> float:
    """Warms up over 2 % of the budget, then falls linearly to 2 % of the peak."""
    return min(1.0, (fraction + 1e-4) / 0.02) * (1.0 - 0.98 * fraction)


def violation(loads: list[torch.Tensor]) -> list[float]:
    """MaxVio per layer (arXiv 2408.15664): largest load over the mean load, minus 1."""
    return [float(x.max() / x.float().mean() - 1.0) for x in loads]


class Exchange:
    """Gradients and expert loads of all ranks, summed through shared memory.

    One thread per process and two meetings per step: on a busy machine this wastes far less than
    threads that wait for each other in every matrix product.
    """

    def __init__(self, ranks: int, gradient_size: int, moe_layers: int, experts: int):
        context = torch.multiprocessing.get_context("spawn")
        self.ranks = ranks
        self.barrier = context.Barrier(ranks)
        self.gradients = torch.zeros(ranks, gradient_size).share_memory_()
        self.loads = torch.zeros(ranks, moe_layers, experts, dtype=torch.long).share_memory_()
        self.losses = torch.zeros(ranks).share_memory_()
        self.fraction = torch.zeros(1, dtype=torch.float64).share_memory_()

    def step_fraction(self, rank: int, fraction: float) -> float:
        """Rank 0's clock decides for all."""
        if rank == 0:
            self.fraction[0] = fraction
        self.barrier.wait()
        return float(self.fraction[0])

    @torch.no_grad()
    def reduce(self, rank: int, model: CausalLM, loss: float) -> tuple[float, torch.Tensor]:
        """Leaves the mean gradient in every p.grad; returns mean loss and [layer, expert] load."""
        params, at = list(model.parameters()), 0
        for p in params:
            self.gradients[rank, at:at + p.numel()] = p.grad.flatten()
            at += p.numel()
        self.loads[rank] = torch.stack([m.load for m in model.moe_layers()])
        self.losses[rank] = loss
        self.barrier.wait()
        at = 0
        for p in params:
            torch.mean(self.gradients[:, at:at + p.numel()].view(-1, *p.shape), 0, out=p.grad)
            at += p.numel()
        return float(self.losses.mean()), self.loads.sum(0)


def prepare(args: argparse.Namespace) -> dict:
    """What all ranks share: the tokenizer, the corpus and the held-out rows."""
    train_files, held_files = data.library_files()
    shape = ModelShape()
    stored = args.work / "tokenizer.json" if args.work else None
    if stored and stored.exists():
        tokenizer = Tokenizer.from_file(str(stored))
    else:
        tokenizer = data.train_tokenizer(
            [train_files[n] for n in sorted(train_files)], shape.vocab_size)
        if stored:
            stored.parent.mkdir(parents=True, exist_ok=True)
            tokenizer.save(str(stored))
    export.write_tokenizer(tokenizer, args.out, shape.max_position_embeddings)
    corpus = data.Corpus(tokenizer, train_files, args.seed)
    about = {
        "corpus_files": len(train_files),
        "corpus_bytes": sum(len(t.encode()) for t in train_files.values()),
        "corpus_tokens_per_epoch": corpus.token_count,
        "chat_tokens_per_epoch": corpus.token_count - corpus.file_tokens,
        "held_out_files": len(held_files),
        "held_out_bytes": sum(len(t.encode()) for t in held_files.values()),
        "torch": torch.__version__,
        "options": {k: str(v) for k, v in vars(args).items() if k not in ("out", "work")},
    }
    return {
        "corpus": corpus, "about": about,
        "held": data.held_out_rows(tokenizer, held_files, args.length, 64, args.seed),
        "held_long": data.held_out_rows(tokenizer, held_files, args.long_length, 16, args.seed),
    }


class Trainer:
    """One rank. All ranks hold the same weights and take the same steps; rank 0 logs and saves."""

    def __init__(self, args: argparse.Namespace, rank: int, exchange: Exchange, shared: dict):
        self.args, self.rank, self.exchange = args, rank, exchange
        random.seed(args.seed)
        np.random.seed(args.seed)
        torch.manual_seed(args.seed)
        torch.set_num_threads(1)
        self.corpus, self.about = shared["corpus"], shared["about"]
        self.held = torch.from_numpy(shared["held"])
        self.held_long = torch.from_numpy(shared["held_long"])
        shape = ModelShape()
        self.model = CausalLM(shape)
        self.optimizers = optimizer.build(self.model, args.muon_lr, args.adam_lr)
        for o in self.optimizers:
            for g in o.param_groups:
                g["peak"] = g["lr"]
        self.step, self.spent_s, self.log = 0, 0.0, []
        self.about["parameters"] = sum(p.numel() for p in self.model.parameters())
        if rank == 0:
            print(json.dumps(self.about), flush=True)
        self.resume()

    def resume(self) -> None:
        path = self.args.work / "checkpoint.pt" if self.args.work else None
        if not path or not path.exists():
            return
        saved = torch.load(path, weights_only=False)
        self.model.load_state_dict(saved["model"])
        for o, s in zip(self.optimizers, saved["optimizers"]):
            o.load_state_dict(s)
        self.step, self.spent_s, self.log = saved["step"], saved["spent_s"], saved["log"]
        self.corpus.rng.seed(self.args.seed + self.step)  # Not the interrupted run's order.

    def checkpoint(self) -> None:
        self.args.work.mkdir(parents=True, exist_ok=True)
        path = self.args.work / "checkpoint.pt"
        torch.save({"model": self.model.state_dict(), "step": self.step, "spent_s": self.spent_s,
                    "log": self.log, "optimizers": [o.state_dict() for o in self.optimizers]},
                   path.with_suffix(".tmp"))
        os.replace(path.with_suffix(".tmp"), path)

    def fraction(self) -> float:
        if self.args.steps:
            return self.step / self.args.steps
        return self.spent_s / (60.0 * self.args.minutes)

    def autocast(self):
        return torch.autocast("cpu", torch.bfloat16, enabled=not self.args.no_bf16)

    @torch.no_grad()
    def evaluate(self, rows: torch.Tensor) -> tuple[float, list[float]]:
        """Held-out loss, and each layer's MaxVio over all held-out rows together."""
        losses, totals = [], None
        for part in rows.split(max(1, BATCH_TOKENS // rows.shape[1] + 1)):
            with self.autocast():
                losses.append(self.model.loss(part).item() * len(part))
            loads = [m.load for m in self.model.moe_layers()]
            totals = loads if totals is None else [a + b for a, b in zip(totals, loads)]
        return sum(losses) / len(rows), violation(totals)

    def train_step(self, fraction: float) -> tuple[float, list[float]]:
        length = self.args.length
        if fraction >= 1.0 - self.args.long_fraction:
            length = self.args.long_length
        rows = torch.from_numpy(self.corpus.rows(BATCH_TOKENS // length, length))
        with self.autocast():
            loss = self.model.loss(rows.chunk(self.exchange.ranks)[self.rank])
        loss.backward()
        loss, loads = self.exchange.reduce(self.rank, self.model, loss.item())
        scale = rate(fraction)
        for o in self.optimizers:
            for g in o.param_groups:
                g["lr"] = g["peak"] * scale
            o.step()
            o.zero_grad(set_to_none=False)
        # The last part settles the biases: their rate falls with the learning rate.
        bias_rate = self.args.bias_rate * min(1.0, 2.0 * scale)
        for m, load in zip(self.model.moe_layers(), loads):
            m.gate.balance(load, bias_rate)
        return loss, violation(list(loads))

    def record(self, losses: list[float], vios: list[float]) -> None:
        held, held_vio = self.evaluate(self.held)
        row = {
            "step": self.step,
            "tokens": self.step * BATCH_TOKENS,
            "minutes": round(self.spent_s / 60, 2),
            "lr_scale": round(rate(self.fraction()), 4),
            "train_loss": round(float(np.mean(losses)), 4),
            "held_out_loss": round(held, 4),
            "max_vio_batch": round(float(np.mean(vios)), 4),
            "max_vio_held_out": round(float(np.mean(held_vio)), 4),
        }
        self.log.append(row)
        print(json.dumps(row), flush=True)

    def run(self) -> None:
        losses, vios, last = [], [], time.monotonic()
        checkpoint_at = self.spent_s + 60 * self.args.checkpoint_minutes
        while (fraction := self.exchange.step_fraction(self.rank, self.fraction())) < 1.0:
            loss, vio = self.train_step(fraction)
            losses.append(loss)
            vios.append(np.mean(vio))
            self.step += 1
            now = time.monotonic()
            self.spent_s, last = self.spent_s + now - last, now
            if self.rank:
                continue
            if self.step % 100 == 0 or self.fraction() >= 1.0:
                self.record(losses, vios)
                losses, vios = [], []
            if self.args.work and self.spent_s >= checkpoint_at:
                self.checkpoint()
                checkpoint_at = self.spent_s + 60 * self.args.checkpoint_minutes
        if self.rank == 0:
            self.finish()

    def finish(self) -> None:
        if self.args.work:
            self.checkpoint()
        export.write_model(self.model, self.args.out)
        held, per_layer = self.evaluate(self.held)
        held_long, _ = self.evaluate(self.held_long)
        self.about.update(
            steps=self.step, tokens=self.step * BATCH_TOKENS, minutes=round(self.spent_s / 60, 2),
            epochs=round(self.step * BATCH_TOKENS / self.corpus.token_count, 2),
            held_out_loss=round(held, 4), held_out_loss_long_rows=round(held_long, 4),
            max_vio_held_out_per_layer=[round(v, 4) for v in per_layer])
        export.write_json(self.args.out / "training_log.json",
                          {"about": self.about, "curve": self.log})


def run_rank(args: argparse.Namespace, rank: int, exchange: Exchange, shared: dict) -> None:
    Trainer(args, rank, exchange, shared).run()


def main() -> None:
    args = parse_args()
    shared, shape = prepare(args), ModelShape()
    size = sum(p.numel() for p in CausalLM(shape).parameters())
    exchange = Exchange(args.ranks, size, shape.num_hidden_layers - shape.first_k_dense_replace,
                        shape.n_routed_experts)
    context = torch.multiprocessing.get_context("spawn")
    others = [context.Process(target=run_rank, args=(args, rank, exchange, shared), daemon=True)
              for rank in range(1, args.ranks)]
    for o in others:
        o.start()
    run_rank(args, 0, exchange, shared)
    for o in others:
        o.join()


if __name__ == "__main__":
    main()
