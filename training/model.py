"""A DeepSeek-V3-architecture language model, written for training on a CPU.

Its arithmetic is that of transformers' DeepseekV3ForCausalLM (verify.py compares the logits).
Experts are stacked tensors here; export.py writes them as the published per-expert tensors.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import nn


@dataclasses.dataclass(frozen=True)
class ModelShape:
    """Names are those of the Hugging Face config; export.py writes them unchanged."""

    vocab_size: int = 4096
    hidden_size: int = 256
    intermediate_size: int = 768
    moe_intermediate_size: int = 64
    num_hidden_layers: int = 7
    num_attention_heads: int = 8
    n_shared_experts: int = 1
    n_routed_experts: int = 32
    routed_scaling_factor: float = 2.0
    kv_lora_rank: int = 64
    q_lora_rank: int = 128
    qk_rope_head_dim: int = 16
    qk_nope_head_dim: int = 32
    v_head_dim: int = 32
    n_group: int = 4
    topk_group: int = 2
    num_experts_per_tok: int = 4
    first_k_dense_replace: int = 1
    max_position_embeddings: int = 2048
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x.float(), (x.shape[-1],), self.weight, self.eps)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotates interleaved pairs (x0, x1), (x2, x3), ...; the output holds evens, then odds."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.cat([even * cos - odd * sin, odd * cos + even * sin], dim=-1)


class Attention(nn.Module):
    """Multi-head latent attention: low-rank q and kv, one rotary key shared by all heads."""

    def __init__(self, shape: ModelShape):
        super().__init__()
        s = self.shape = shape
        heads, qk_dim = s.num_attention_heads, s.qk_nope_head_dim + s.qk_rope_head_dim
        self.q_a_proj = nn.Linear(s.hidden_size, s.q_lora_rank, bias=False)
        self.q_a_layernorm = RMSNorm(s.q_lora_rank, s.rms_norm_eps)
        self.q_b_proj = nn.Linear(s.q_lora_rank, heads * qk_dim, bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(
            s.hidden_size, s.kv_lora_rank + s.qk_rope_head_dim, bias=False)
        self.kv_a_layernorm = RMSNorm(s.kv_lora_rank, s.rms_norm_eps)
        self.kv_b_proj = nn.Linear(
            s.kv_lora_rank, heads * (s.qk_nope_head_dim + s.v_head_dim), bias=False)
        self.o_proj = nn.Linear(heads * s.v_head_dim, s.hidden_size, bias=False)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        s = self.shape
        batch, length, _ = x.shape
        heads = s.num_attention_heads
        q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x)))
        q = q.view(batch, length, heads, -1).transpose(1, 2)
        q_nope, q_rope = q.split([s.qk_nope_head_dim, s.qk_rope_head_dim], dim=-1)
        latent, k_rope = self.kv_a_proj_with_mqa(x).split(
            [s.kv_lora_rank, s.qk_rope_head_dim], dim=-1)
        kv = self.kv_b_proj(self.kv_a_layernorm(latent))
        kv = kv.view(batch, length, heads, -1).transpose(1, 2)
        k_nope, v = kv.split([s.qk_nope_head_dim, s.v_head_dim], dim=-1)
        cos, sin = cos.to(q.dtype), sin.to(q.dtype)
        k_rope = rotate(k_rope[:, None], cos, sin).expand(-1, heads, -1, -1)
        q = torch.cat([q_nope, rotate(q_rope, cos, sin)], dim=-1)
        k = torch.cat([k_nope, k_rope], dim=-1)
        # The fused CPU kernel wants q, k and v of one width; the zero columns are cut off again.
        v = F.pad(v, (0, q.shape[-1] - s.v_head_dim))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)[..., :s.v_head_dim]
        return self.o_proj(out.transpose(1, 2).reshape(batch, length, -1))


class FeedForward(nn.Module):
    def __init__(self, hidden: int, inner: int):
        super().__init__()
        self.gate_proj = nn.Linear(hidden, inner, bias=False)
        self.up_proj = nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Gate(nn.Module):
    """Sigmoid scores, group-limited top-k. The correction bias chooses and never weighs."""

    def __init__(self, shape: ModelShape):
        super().__init__()
        self.shape = shape
        self.weight = nn.Parameter(torch.empty(shape.n_routed_experts, shape.hidden_size))
        self.register_buffer("e_score_correction_bias", torch.zeros(shape.n_routed_experts))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        s = self.shape
        with torch.autocast("cpu", enabled=False):
            scores = F.linear(x.float(), self.weight).sigmoid()
        with torch.no_grad():
            choice = (scores + self.e_score_correction_bias).view(len(x), s.n_group, -1)
            group_scores = choice.topk(2, dim=-1).values.sum(dim=-1)
            kept = group_scores.topk(s.topk_group, dim=-1).indices
            dropped = torch.ones_like(group_scores).scatter_(1, kept, 0.0).bool()
            # Published code masks with 0.0, transformers 5 with -inf. They agree while no bias
            # is negative, which balance() keeps true.
            choice = choice.masked_fill(dropped[..., None], 0.0).flatten(1)
            indices = choice.topk(s.num_experts_per_tok, dim=-1).indices
        weights = scores.gather(1, indices)
        weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
        return indices, weights * s.routed_scaling_factor

    @torch.no_grad()
    def balance(self, load: torch.Tensor, rate: float) -> None:
        """arXiv 2408.15664: nudges each bias by the sign of its expert's load error.

        Adding one constant to all biases changes no choice, so the least is kept at 0.
        """
        bias = self.e_score_correction_bias
        bias += rate * torch.sign(load.float().mean() - load.float())
        bias -= bias.min()


def compute_dtype(x: torch.Tensor) -> torch.dtype:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


class HeadLoss(torch.autograd.Function):
    """Output projection and cross entropy in chunks whose logits fit the cache."""

    @staticmethod
    def forward(ctx, hidden, weight, targets):
        dtype = compute_dtype(hidden)
        h, w, count = hidden.to(dtype), weight.to(dtype), len(targets)
        total = hidden.new_zeros((), dtype=torch.float32)
        grad_h, grad_w = torch.empty_like(h), torch.zeros_like(weight, dtype=torch.float32)
        for i in range(0, count, 512):
            logits = (h[i:i + 512] @ w.t()).float()
            at = targets[i:i + 512, None]
            norm = logits.logsumexp(-1, keepdim=True)
            total += (norm - logits.gather(1, at)).sum()
            logits.sub_(norm).exp_().scatter_add_(1, at, torch.full_like(norm, -1.0))
            to_logits = logits.to(dtype)
            grad_h[i:i + 512] = to_logits @ w
            grad_w += to_logits.t() @ h[i:i + 512]
        ctx.save_for_backward(grad_h, grad_w)
        ctx.count, ctx.dtype = count, hidden.dtype
        return total / count

    @staticmethod
    def backward(ctx, grad):
        grad_h, grad_w = ctx.saved_tensors
        scale = grad / ctx.count
        return (grad_h * scale).to(ctx.dtype), grad_w * scale, None


class Dispatch(torch.autograd.Function):
    """Copies tokens into expert slots. The gradient gathers, which is faster than scattering."""

    @staticmethod
    def forward(ctx, x, sources, slots):
        ctx.save_for_backward(slots)
        ctx.shape = x.shape
        return x.index_select(0, sources)

    @staticmethod
    def backward(ctx, grad):
        (slots,) = ctx.saved_tensors
        tokens, hidden = ctx.shape
        return grad.index_select(0, slots).view(tokens, -1, hidden).sum(1), None, None


class Combine(torch.autograd.Function):
    """Weighs and sums each token's slots. Padding slots get a zero gradient."""

    @staticmethod
    def forward(ctx, out, slots, weights):
        picked = out.index_select(0, slots).view(*weights.shape, -1)
        ctx.save_for_backward(picked, slots, weights)
        ctx.slot_count = len(out)
        return (picked * weights[..., None]).sum(1)

    @staticmethod
    def backward(ctx, grad):
        picked, slots, weights = ctx.saved_tensors
        to_slots = grad.new_zeros(ctx.slot_count, grad.shape[-1])
        to_slots.index_copy_(0, slots, (grad[:, None] * weights[..., None]).flatten(0, 1))
        return to_slots, None, (picked * grad[:, None]).sum(-1)


class Experts(nn.Module):
    def __init__(self, shape: ModelShape):
        super().__init__()
        count, inner, hidden = (
            shape.n_routed_experts, shape.moe_intermediate_size, shape.hidden_size)
        self.gate_proj = nn.Parameter(torch.empty(count, inner, hidden))
        self.up_proj = nn.Parameter(torch.empty(count, inner, hidden))
        self.down_proj = nn.Parameter(torch.empty(count, hidden, inner))

    def forward(self, x, indices, weights, load: torch.Tensor) -> torch.Tensor:
        """Dropless: token copies sorted by expert, one GEMM pair per expert. x: [tokens, hidden].

        Each expert's rows are padded to a multiple of 64, so that the CPU's GEMM library meets
        few distinct shapes and need not generate code for new ones at every step.
        """
        top_k = indices.shape[1]
        dtype = compute_dtype(x)
        padded = (load + 63) // 64 * 64
        expert_of = indices.flatten()
        order = expert_of.argsort(stable=True)
        shift = (padded.cumsum(0) - padded) - (load.cumsum(0) - load)
        slot_of_sorted = torch.arange(len(order)) + shift[expert_of[order]]
        slots = torch.empty_like(order)
        slots[order] = slot_of_sorted
        sources = torch.zeros(int(padded.sum()), dtype=torch.long)
        sources[slot_of_sorted] = order // top_k
        sizes = padded.tolist()
        rows = Dispatch.apply(x.to(dtype), sources, slots).split(sizes)
        gate_up = torch.cat([self.gate_proj, self.up_proj], dim=1).to(dtype).unbind(0)
        down = self.down_proj.to(dtype).unbind(0)
        inner = torch.cat([F.linear(r, w) for r, w in zip(rows, gate_up)])
        gate, up = inner.chunk(2, dim=-1)
        inner = (F.silu(gate) * up).split(sizes)
        out = torch.cat([F.linear(r, w) for r, w in zip(inner, down)])
        return Combine.apply(out, slots, weights.to(dtype))


class MoE(nn.Module):
    def __init__(self, shape: ModelShape):
        super().__init__()
        self.gate = Gate(shape)
        self.experts = Experts(shape)
        self.shared_experts = FeedForward(
            shape.hidden_size, shape.moe_intermediate_size * shape.n_shared_experts)
        self.load = None  # Tokens per expert in the latest forward pass.

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1])
        indices, weights = self.gate(flat)
        self.load = torch.bincount(
            indices.flatten(), minlength=self.gate.e_score_correction_bias.numel())
        routed = self.experts(flat, indices, weights, self.load).view(x.shape)
        return routed + self.shared_experts(x)


class Layer(nn.Module):
    def __init__(self, shape: ModelShape, layer_index: int):
        super().__init__()
        self.input_layernorm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        dense = layer_index < shape.first_k_dense_replace
        self.mlp = FeedForward(shape.hidden_size, shape.intermediate_size) if dense else MoE(shape)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Trunk(nn.Module):
    def __init__(self, shape: ModelShape):
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape, i) for i in range(shape.num_hidden_layers))
        self.norm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)


class CausalLM(nn.Module):
    def __init__(self, shape: ModelShape):
        super().__init__()
        self.shape = shape
        self.model = Trunk(shape)
        self.lm_head = nn.Linear(shape.hidden_size, shape.vocab_size, bias=False)
        dim = shape.qk_rope_head_dim
        inverse = 1.0 / shape.rope_theta ** (torch.arange(0, dim, 2).float() / dim)
        angles = torch.arange(shape.max_position_embeddings).float()[:, None] * inverse
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Fan-in scaled; what writes to the residual stream and the head start at zero."""
        for name, p in self.named_parameters():
            if name.endswith("embed_tokens.weight"):
                p.normal_(0.0, 0.5)
            elif name.endswith(("o_proj.weight", "down_proj.weight", "down_proj",
                                "lm_head.weight")):
                p.zero_()
            elif p.dim() > 1:
                p.normal_(0.0, p.shape[-1] ** -0.5)

    def moe_layers(self) -> list[MoE]:
        return [layer.mlp for layer in self.model.layers if isinstance(layer.mlp, MoE)]

    def hidden(self, tokens: torch.Tensor) -> torch.Tensor:
        """The final norm's output, [batch, length, hidden]."""
        length = tokens.shape[1]
        x = self.model.embed_tokens(tokens)
        for layer in self.model.layers:
            x = layer(x, self.cos[:length], self.sin[:length])
        return self.model.norm(x)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.lm_head(self.hidden(tokens))

    def loss(self, tokens: torch.Tensor) -> torch.Tensor:
        """Mean next-token cross entropy in nats; tokens: [batch, length + 1]."""
        hidden = self.hidden(tokens[:, :-1]).flatten(0, 1)
        return HeadLoss.apply(hidden, self.lm_head.weight, tokens[:, 1:].flatten())
