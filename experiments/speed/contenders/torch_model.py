"""The transformer family in PyTorch, as one would write it there.

The same function and the same initial distribution as the Flax model of
`arch`, with a fused projection of queries, keys and values, a fused one of
gate and up, and PyTorch's own attention.
"""

import math
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from contenders.scenarios import deviations
from torch import nn

GROUPS, EPSILON = 8, 1e-5
POSITION_SCALE = 0.1  # of sinusoids beside embeddings
GATED = ("geglu", "swiglu")


class GroupNorm(nn.Module):
    """Over the groups of each token's own channels, with a scale."""

    def __init__(self, hidden: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden))

    def forward(self, x):
        """[B, T, D] -> [B, T, D]."""
        flat = F.group_norm(x.flatten(0, 1), GROUPS, self.weight, eps=EPSILON)
        return flat.view_as(x)


NORMS = {
    "layernorm": lambda hidden: nn.LayerNorm(hidden, eps=EPSILON, bias=False),
    "rmsnorm": lambda hidden: nn.RMSNorm(hidden, eps=EPSILON),
    "groupnorm": GroupNorm,
}


class Attention(nn.Module):
    """Causal multi-head attention."""

    def __init__(self, config):
        super().__init__()
        hidden, length = config.hidden_dim, config.max_seq_length
        self.heads, self.rate = config.num_heads, config.attention_dropout
        self.qkv = nn.Linear(hidden, 3 * hidden, bias=False)
        self.out = nn.Linear(hidden, hidden, bias=False)
        rotary = config.position_encoding == "rope"
        linear = config.position_encoding == "alibi"
        turns = rotations(length, hidden // self.heads) if rotary else None
        bias = alibi(length, self.heads) if linear else None
        self.register_buffer("turns", turns, persistent=False)
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, x):
        """[B, T, D] -> [B, T, D]."""
        rows, time, hidden = x.shape
        qkv = self.qkv(x).view(rows, time, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # [B, N, T, H] each
        if self.turns is not None:
            q, k = rotate(q, self.turns[:time]), rotate(k, self.turns[:time])
        mixed = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=None if self.bias is None else self.bias[:, :time, :time],
            dropout_p=self.rate if self.training else 0.0,
            is_causal=self.bias is None,
        )
        return self.out(mixed.transpose(1, 2).reshape(rows, time, hidden))


class FeedForward(nn.Module):
    """Up, activate, down, gated or not."""

    def __init__(self, config):
        super().__init__()
        inner = int(config.hidden_dim * config.ffn_multiplier)
        self.gated = config.activation in GATED
        self.activate = F.gelu if config.activation in ("gelu", "geglu") else F.silu
        self.up = nn.Linear(config.hidden_dim, inner * (1 + self.gated), bias=False)
        self.down = nn.Linear(inner, config.hidden_dim, bias=False)

    def forward(self, x):
        """[B, T, D] -> [B, T, D]."""
        if not self.gated:
            return self.down(self.activate(self.up(x)))
        gate, up = self.up(x).chunk(2, dim=-1)
        return self.down(self.activate(gate) * up)


class Block(nn.Module):
    """Pre-norm: x + sublayer(norm(x)), twice."""

    def __init__(self, config):
        super().__init__()
        norm = NORMS[config.normalization]
        self.mixer_norm, self.mixer = norm(config.hidden_dim), Attention(config)
        self.feedforward_norm = norm(config.hidden_dim)
        self.feedforward = FeedForward(config)
        self.drop = nn.Dropout(config.residual_dropout)

    def forward(self, x):
        """[B, T, D] -> [B, T, D]."""
        x = x + self.drop(self.mixer(self.mixer_norm(x)))
        return x + self.drop(self.feedforward(self.feedforward_norm(x)))


class Transformer(nn.Module):
    """A language model of the config's fields, its head untied."""

    def __init__(self, fields: dict):
        super().__init__()
        config = SimpleNamespace(**fields)
        hidden = config.hidden_dim
        self.embed = nn.Embedding(config.vocab_size, hidden)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = NORMS[config.normalization](hidden)
        self.head = nn.Linear(hidden, config.vocab_size, bias=False)
        absolute = config.position_encoding == "absolute"
        table = sinusoids(config.max_seq_length, hidden) if absolute else None
        self.register_buffer("positions", table, persistent=False)
        self._draw(config)

    def forward(self, tokens):
        """i64[B, T] -> f32[B, T, V]."""
        x = self.embed(tokens)
        if self.positions is not None:
            x = x + POSITION_SCALE * self.positions[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))

    def _draw(self, config):
        inner = int(config.hidden_dim * config.ffn_multiplier)
        by_name = deviations(config.num_layers, config.hidden_dim, inner)
        for path, weights in self.named_parameters():
            if weights.ndim == 2:
                module = path.split(".")[-2]
                nn.init.normal_(weights, std=by_name.get(module, by_name["reading"]))


def sinusoids(length: int, hidden: int) -> torch.Tensor:
    """f32[T, D]: sines at even channels, cosines at odd ones (arXiv:1706.03762)."""
    frequency = torch.exp(-math.log(1e4) * torch.arange(0, hidden, 2) / hidden)
    angle = torch.arange(length)[:, None] * frequency
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


def rotations(length: int, head_dim: int) -> torch.Tensor:
    """c64[T, H/2]: how far each pair of channels turns (arXiv:2104.09864)."""
    frequency = torch.exp(-math.log(1e4) * torch.arange(0, head_dim, 2) / head_dim)
    angle = torch.arange(length)[:, None] * frequency
    return torch.polar(torch.ones_like(angle), angle)


def rotate(x: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """[B, N, T, H], c64[T, H/2] -> [B, N, T, H]."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turns).flatten(-2)


def alibi(length: int, heads: int) -> torch.Tensor:
    """f32[N, T, T]: the linear bias, minus infinity for the future.

    The slopes of arXiv:2108.12409 for a power of two, which all counts here are.
    """
    slopes = 2.0 ** (-8.0 * torch.arange(1, heads + 1) / heads)
    distance = torch.arange(length)[:, None] - torch.arange(length)[None]
    bias = -slopes[:, None, None] * distance
    return bias.masked_fill(distance < 0, -math.inf)
