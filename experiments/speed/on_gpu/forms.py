"""The forms in which each family reads a sequence, and what they must equal."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
from mixers import token_scan

from arch.config import MAMBA_STATE
from arch.mixers import flash, linear_attention, mamba, wkv
from arch.mixers.chunks import scan_chunks
from arch.mixers.softmax import Scoring, attend_densely

HALF, FULL = "bfloat16", "float32"


class Size(NamedTuple):
    """What is read."""

    batch: int
    width: int
    heads: int
    tokens: int


class Form(NamedTuple):
    """A way of reading; `change` sets a constant of a module while it is traced."""

    family: str
    name: str
    read: Callable  # the family's inputs -> [B, T, ...]
    change: tuple | None = None  # module, name, value
    only: str | None = None  # the dtype that it takes; None for both

    @contextlib.contextmanager
    def set_up(self) -> Iterator[None]:
        """For tracing."""
        if self.change is None:
            yield
        else:
            with mock.patch.object(*self.change):
                yield


class Family(NamedTuple):
    """Inputs and the plain function of them."""

    draw: Callable  # (key, Size, dtype) -> inputs
    reference: Callable  # inputs -> [B, T, ...], token by token or densely


def forms_for(size: Size) -> list[Form]:
    """All that make sense at a size."""
    length = size.tokens
    forms = []
    for family in ("attention", "grouped"):
        forms.append(Form(family, "dense", densely))
        for block in chunks_in(length, (128, 256, 512)):
            read = functools.partial(by_blocks, block=block)
            forms.append(Form(family, f"blocks of {block}", read))
        forms.append(Form(family, "jax.nn, xla", with_jax))
        if flash.has_cudnn():
            read = functools.partial(with_jax, implementation="cudnn")
            forms.append(Form(family, "cudnn", read, only=HALF))
    for chunk in chunks_in(length, (32, 64, 128, 256)):
        change = (linear_attention, "CHUNK", chunk)
        name = chunks_named(chunk, linear_attention.CHUNK)
        forms.append(Form("linear", name, read_linear, change))
    own = mamba.chunk_size(length)
    for chunk in sorted({own, *chunks_in(length, (16, 128, 512))}):
        change = (mamba, "chunk_size", lambda _, chunk=chunk: chunk)
        forms.append(Form("mamba", chunks_named(chunk, own), read_mamba, change))
    if length > 64:  # else it is one chunk
        forms.append(Form("mamba", "associative", associative))
    for chunk in chunks_in(length, (64, 256)):
        read = functools.partial(associative_chunks, chunk=chunk)
        forms.append(Form("mamba", f"associative, {chunk}", read))
    for chunk in chunks_in(length, (16, 32, 64, 128)):
        change = (wkv, "CHUNK", chunk)
        forms.append(Form("wkv", chunks_named(chunk, wkv.CHUNK), read_wkv, change))
    return forms


def chunks_named(chunk: int, own: int) -> str:
    """As tables call it, with a mark if it is what the module takes by itself."""
    return f"chunks of {chunk}" + " (default)" * (chunk == own)


def chunks_in(length: int, sizes: tuple[int, ...]) -> list[int]:
    """Sizes up to the length; the smallest in any case."""
    return [size for size in sizes if size <= length] or [min(sizes)]


# ---- softmax attention: q [B, T, K, G, H], k and v [B, T, K, H] ----


def draw_attention(key, size: Size, dtype, groups: int = 1):
    head, kv = size.width // size.heads, size.heads // groups
    shapes = [(size.batch, size.tokens, kv, groups, head)]
    shapes += [(size.batch, size.tokens, kv, head)] * 2
    return normals(key, shapes, dtype)


def normals(key, shapes, dtype):
    keys = jax.random.split(key, len(shapes))
    return tuple(
        jax.random.normal(one, shape).astype(dtype)
        for one, shape in zip(keys, shapes, strict=True)
    )


def scoring_of(q) -> Scoring:
    return Scoring(q.shape[-1] ** -0.5, None)


def positions_of(q) -> jax.Array:
    return jnp.arange(q.shape[1])[None]


def densely(q, k, v):
    return attend_densely(q, k, v, positions_of(q), scoring_of(q))


def by_blocks(q, k, v, block):
    at = positions_of(q)
    return flash.attend_by_blocks(q, k, v, at, scoring_of(q), block)


def with_jax(q, k, v, implementation="xla"):
    return flash.attend_with_cudnn(q, k, v, scoring_of(q), implementation)


# ---- linear attention: q, k, v [B, T, N, H] ----


def draw_linear(key, size: Size, dtype):
    shape = (size.batch, size.tokens, size.heads, size.width // size.heads)
    return normals(key, [shape] * 3, dtype)


def featured(q, k):
    return (linear_attention.features(x, x.shape[-1]) for x in (q, k))


def read_linear(q, k, v):
    plain = linear_attention.Pair(*featured(q, k))
    return linear_attention.read(plain, None, v, jnp.zeros(1))[0]


def linear_by_tokens(q, k, v):
    return token_scan(*featured(q, k), v)


# ---- Mamba: step and x [B, T, E], write and read [B, T, N], rates [N, E] ----


def draw_mamba(key, size: Size, dtype):
    wide = (size.batch, size.tokens, 2 * size.width)
    narrow = (*wide[:2], MAMBA_STATE)
    drawn = normals(key, [wide, wide, narrow, narrow], dtype)
    rates = jnp.log(jnp.arange(1.0, MAMBA_STATE + 1))[:, None]
    return (*drawn, jnp.broadcast_to(rates, (MAMBA_STATE, wide[-1])))


def selected(step, x, write, read, rates):
    """Inputs as the module hands them to the scan, in float32."""
    step, x, write, read = (t.astype(jnp.float32) for t in (step, x, write, read))
    # About 0.01 to 0.1, as Mamba's initial bias makes it.
    tokens = mamba.Tokens(jax.nn.softplus(step - 3), x, write, read)
    return -jnp.exp(rates), tokens


def read_mamba(*inputs):
    return mamba.selective_scan(*selected(*inputs), None)[0]


def mamba_by_tokens(*inputs):
    rates, tokens = selected(*inputs)

    def step(hidden, token):
        decay = jnp.exp(token.step[:, None] * rates[None])
        added = (token.step * token.x)[:, None] * token.write[:, :, None]
        hidden = decay * hidden + added
        return hidden, jnp.einsum("bne,bn->be", hidden, token.read)

    start = jnp.zeros((len(tokens.x), *rates.shape))
    moved = jax.tree.map(lambda t: jnp.moveaxis(t, 1, 0), tokens)
    return jnp.moveaxis(jax.lax.scan(step, start, moved)[1], 0, 1)


def states_of(rates, tokens):
    """What a chunk does by itself: decays since its start and states after tokens.

    Both f32[B, T, N, E].
    """
    decay = jnp.exp(tokens.step[:, :, None] * rates[None, None])
    added = (tokens.step * tokens.x)[:, :, None] * tokens.write[..., None]

    def join(early, late):
        return early[0] * late[0], late[0] * early[1] + late[1]

    return jax.lax.associative_scan(join, (decay, added), axis=1)


def associative(*inputs):
    rates, tokens = selected(*inputs)
    _, hidden = states_of(rates, tokens)
    return jnp.einsum("btne,btn->bte", hidden, tokens.read)


def associative_chunks(*inputs, chunk):
    rates, tokens = selected(*inputs)

    def step(hidden, tokens):
        decay, own = states_of(rates, tokens)
        states = own + decay * hidden[:, None]
        return states[:, -1], jnp.einsum("btne,btn->bte", states, tokens.read)

    start = jnp.zeros((len(tokens.x), *rates.shape))
    return scan_chunks(step, start, tokens, chunk)[1]


# ---- RWKV's WKV: keys and values [B, T, D], decay and bonus [D] ----


def draw_wkv(key, size: Size, dtype):
    for_tokens, for_channels = jax.random.split(key)
    tokens = normals(for_tokens, [(size.batch, size.tokens, size.width)] * 2, dtype)
    return (*tokens, *normals(for_channels, [(size.width,)] * 2, jnp.float32))


def read_wkv(keys, values, decay, bonus):
    return wkv.wkv(-jnp.exp(decay), bonus, keys, values, None)[0]


def wkv_by_tokens(keys, values, decay, bonus):
    decay = -jnp.exp(decay)

    def step(sums, token):  # keys are small: no maximum is needed
        key, value = token
        top, bottom = sums
        now = jnp.exp(key + bonus[None])
        y = (top + now * value) / (bottom + now)
        kept, new = jnp.exp(decay)[None], jnp.exp(key)
        return (kept * top + new * value, kept * bottom + new), y

    moved = [jnp.moveaxis(t.astype(jnp.float32), 1, 0) for t in (keys, values)]
    zeros = jnp.zeros(moved[0].shape[1:])
    return jnp.moveaxis(jax.lax.scan(step, (zeros, zeros), tuple(moved))[1], 0, 1)


FAMILIES = {
    "attention": Family(draw_attention, densely),
    "grouped": Family(functools.partial(draw_attention, groups=2), densely),
    "linear": Family(draw_linear, linear_by_tokens),
    "mamba": Family(draw_mamba, mamba_by_tokens),
    "wkv": Family(draw_wkv, wkv_by_tokens),
}
