"""Muon for the matrices, AdamW for embeddings, head, gates and norms."""

from __future__ import annotations

import torch


def orthogonalize(g: torch.Tensor, rounds: int = 5) -> torch.Tensor:
    """Newton-Schulz iteration on a batch of matrices [n, rows, cols], in bfloat16."""
    x = g.bfloat16()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.transpose(1, 2)
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(rounds):
        a = x @ x.transpose(1, 2)
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a @ a)) @ x
    return x.transpose(1, 2) if tall else x


class Muon(torch.optim.Optimizer):
    """Each 2-D parameter is one matrix, each 3-D parameter (stacked experts) a batch of them."""

    def __init__(self, params, lr: float, momentum: float = 0.95, weight_decay: float = 0.1):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            by_shape = {}
            for p in group["params"]:
                by_shape.setdefault(tuple(p.shape[-2:]), []).append(p)
            for (rows, cols), params in by_shape.items():
                directions = []
                for p in params:
                    state = self.state[p]
                    if "momentum" not in state:
                        state["momentum"] = torch.zeros_like(p)
                    m = state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                    directions.append(p.grad.lerp(m, group["momentum"]).view(-1, rows, cols))
                sizes = [len(d) for d in directions]
                updates = orthogonalize(torch.cat(directions)).float().split(sizes)
                scale = group["lr"] * max(1.0, rows / cols) ** 0.5
                for p, u in zip(params, updates):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(u.view_as(p), alpha=-scale)


def build(model, muon_lr: float, adam_lr: float):
    """The matrices inside the layers go to Muon, all else to AdamW."""
    matrices, table, small = [], [], []
    for name, p in model.named_parameters():
        if p.dim() < 2 or ".gate.weight" in name:
            small.append(p)
        elif "embed_tokens" in name or "lm_head" in name:
            table.append(p)
        else:
            matrices.append(p)
    adam = torch.optim.AdamW(
        [dict(params=table, lr=adam_lr, weight_decay=0.01),
         dict(params=small, lr=adam_lr, weight_decay=0.0)],
        betas=(0.9, 0.95), eps=1e-10)
    return [Muon(matrices, lr=muon_lr), adam]
