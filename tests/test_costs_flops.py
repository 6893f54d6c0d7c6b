"""FLOPs and states against the modules, and against plain implementations."""

import collections
import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cost_configs import LLAMA_7B, SMALL, of_family

from arch import build_model, cost
from arch.cost import attention as attention_costs
from arch.cost.linear_attention import CHUNK
from arch.families import FAMILIES
from arch.mixers import flash, linear_attention
from arch.model import init_states
from arch.published import KNOWN

# One operation a value that they write, or for a sum that they read.
ARITHMETIC = {
    *("add", "sub", "mul", "div", "max", "min", "neg", "exp", "log", "log1p", "erf"),
    *("tanh", "logistic", "sqrt", "rsqrt", "square", "integer_pow", "select_n"),
    *("expm1", "abs", "cumsum", "cummax"),
}
SUMS = {"reduce_sum", "reduce_max"}


def operations(jaxpr):
    """FLOPs of a traced function: of its matrix products, and all others."""
    found = collections.Counter()
    for op in jaxpr.eqns:
        name = op.primitive.name
        bodies = [getattr(value, "jaxpr", value) for value in op.params.values()]
        bodies = [body for body in bodies if hasattr(body, "eqns")]
        written = sum(math.prod(var.aval.shape) for var in op.outvars)
        if bodies:
            for body in bodies:
                for kind, number in operations(body).items():
                    found[kind] += number * op.params.get("length", 1)
        elif name == "dot_general":
            (summed, _), _ = op.params["dimension_numbers"]
            shape = op.invars[0].aval.shape
            found["products"] += 2 * written * math.prod(shape[at] for at in summed)
        elif name in ARITHMETIC:
            found["others"] += written
        elif name in SUMS:
            found["others"] += math.prod(op.invars[0].aval.shape)
    return found


def traced(config, reading):
    """The module's operations in one reading."""
    model, batch = build_model(config), reading.batch
    tokens = jax.ShapeDtypeStruct((batch, reading.tokens), jnp.int32)
    params = jax.eval_shape(model.init, jax.random.key(0), tokens)
    if not reading.keeps_cache:
        return operations(jax.make_jaxpr(model.apply)(params, tokens).jaxpr)
    # No room is left over: a cache is read whole.
    room = reading.past + reading.tokens
    states = jax.eval_shape(lambda: init_states(config, batch, room))
    read = functools.partial(model.apply, method="read_prompt")
    return operations(jax.make_jaxpr(read)(params, tokens, states).jaxpr)


# Ops that hold matrix products and others.
FUSED = {"flash", "step", "scan", "wkv"}
# Of linear attention 130 tokens are three chunks of 44, the last one padded.
READINGS = {
    "training": cost.forward(2, 130),
    "short": cost.forward(2, 40),
    "prefill": cost.prefill(2, 130),
    "short prefill": cost.prefill(2, 40),
    "decode": cost.decode(2, 47),
}


@pytest.mark.parametrize(
    ("family", "name"),
    [
        (family, name)
        for family in FAMILIES
        for name, reading in READINGS.items()
        # Flash leaves blocks out by a loop whose length is data, 1 for one block.
        if family != "flash_attention" or reading.tokens <= flash.BLOCK
    ],
)
@pytest.mark.sweep(4)
def test_flops_are_those_of_the_module(family, name):
    reading = READINGS[name]
    config = of_family(family, vocab_size=100)
    found = traced(config, reading)
    kinds = collections.Counter()
    for op in cost.list_ops(cost.sizes_of(config), reading):
        kind = "fused" if op.name in FUSED else op.kind
        kinds[kind] += op.count * op.flops
    products = kinds["matmul"] + kinds["attention"]
    assert products <= found["products"] <= products + kinds["fused"]
    assert kinds.total() == pytest.approx(found.total(), rel=0.03)
    # The few operations a value are rounded figures.
    assert 0.65 < (kinds.total() - found["products"]) / found["others"] < 1.35


@pytest.mark.parametrize(
    ("tokens", "past"),
    [(129, 0), (300, 0), (1024, 0), (200, 57), (131, 1000), (131, 125)],
)
def test_flash_computes_the_blocks_that_hold_a_score_to_be_seen(tokens, past):
    number, size = zip(*map(in_blocks, (tokens, past + tokens)), strict=True)
    seen = np.tril(np.ones((tokens, past + tokens), bool), past)
    blocks = np.zeros((number[0], size[0], number[1], size[1]), bool)
    blocks.reshape(number[0] * size[0], -1)[:tokens, : past + tokens] = seen
    computed = int(blocks.any(axis=(1, 3)).sum()) * math.prod(size)
    reading = cost.Workload(
        batch=2, tokens=tokens, past=past, logits=1, keeps_cache=past > 0
    )
    dense, by_blocks = (
        cost.total_flops(cost.sizes_of(of_family(family)), reading)
        for family in ("transformer", "flash_attention")
    )
    # Of a score: a product with each of 24 channels, twice, and the softmax.
    score = 2 * 2 * 24 + 6
    left_out = tokens * (past + tokens) - computed
    assert dense - by_blocks == 3 * 2 * 4 * score * left_out


def in_blocks(tokens):
    """The fewest blocks of one length that hold them."""
    number = math.ceil(tokens / flash.BLOCK)
    return number, math.ceil(tokens / number)


def test_flash_is_dense_for_few_tokens():
    at_most = flash.DENSE_TOKENS
    dense, by_blocks = (
        cost.sizes_of(of_family(family))
        for family in ("transformer", "flash_attention")
    )
    for reading in (cost.forward(2, at_most), cost.decode(2, 1000)):
        assert cost.list_ops(by_blocks, reading) == cost.list_ops(dense, reading)
    names = {op.name for op in cost.list_ops(by_blocks, cost.forward(2, at_most + 1))}
    assert "flash" in names
    assert "softmax" not in names


def softmax_transformer(params, tokens, heads):
    """Logits of a plain transformer: RMSNorm, SwiGLU, no positions."""

    def norm(x, scale):
        mean = jnp.mean(x * x, axis=-1, keepdims=True)
        return x * jax.lax.rsqrt(mean + 1e-6) * jnp.broadcast_to(scale, x.shape)

    embedding, layers, last, head = params
    x = embedding[tokens]
    batch, length, hidden = x.shape
    split = lambda y: y.reshape(batch, length, heads, hidden // heads)
    for first, q, k, v, out, second, up, gate, down in layers:
        y = norm(x, first)
        scores = jnp.einsum("btnh,bsnh->bnts", split(y @ q), split(y @ k))
        weights = jax.nn.softmax(scores / math.sqrt(hidden // heads), axis=-1)
        mixed = jnp.einsum("bnts,bsnh->btnh", weights, split(y @ v))
        x = x + mixed.reshape(x.shape) @ out
        y = norm(x, second)
        x = x + (jax.nn.silu(y @ gate) * (y @ up)) @ down
    return norm(x, last) @ head


def xla_flops(function, *shapes):
    return jax.jit(function).lower(*shapes).compile().cost_analysis()["flops"]


def floats(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def test_flops_are_those_of_the_compiled_transformer():
    config = dataclasses.replace(SMALL, num_layers=2, hidden_dim=128)
    hidden, inner, vocab = 128, config.feedforward_dim, config.vocab_size
    square = floats(hidden, hidden)
    wide = floats(hidden, inner)
    layer = (
        floats(hidden),
        *[square] * 4,
        floats(hidden),
        wide,
        wide,
        floats(inner, hidden),
    )
    params = (
        floats(vocab, hidden),
        [layer] * 2,
        floats(hidden),
        floats(hidden, vocab),
    )
    tokens = jax.ShapeDtypeStruct((2, 64), jnp.int32)
    forward = lambda params, tokens: softmax_transformer(params, tokens, 4)
    measured = xla_flops(forward, params, tokens)
    assert cost.forward_flops(config, 2, 64) == pytest.approx(measured, rel=0.03)
    ops = cost.list_ops(cost.sizes_of(config), cost.forward(2, 64))
    dense = sum(op.count * op.flops for op in ops if op.kind in ("matmul", "attention"))
    assert 0.95 * measured < dense < measured


def test_flops_are_those_of_the_compiled_mamba():
    hidden, inner, rank, length, vocab = 80, 160, 5, 6, 500

    def forward(params, tokens):
        embedding, w_in, conv, w_x, w_step, decay, skip, w_out, head = params
        x = embedding[tokens]
        y = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6)
        u, z = jnp.split(y @ w_in, 2, axis=-1)
        padded = jnp.pad(u, ((3, 0), (0, 0)))
        u = sum(padded[i : i + length] * conv[i][None] for i in range(4))
        u = jax.nn.silu(u)
        step, b, c = jnp.split(u @ w_x, (rank, rank + 16), axis=-1)
        step = jnp.log1p(jnp.exp(step @ w_step))
        state, outputs = jnp.zeros((inner, 16)), []
        for t in range(length):  # unrolled: XLA counts a loop's body once
            state = state * jnp.exp(step[t][:, None] * decay)
            state = state + (step[t] * u[t])[:, None] * b[t][None]
            outputs.append((state * c[t][None]).sum(-1) + skip * u[t])
        x = x + (jnp.stack(outputs) * jax.nn.silu(z)) @ w_out
        y = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6)
        return y @ head

    params = (
        floats(vocab, hidden),
        floats(hidden, 2 * inner),
        floats(4, inner),
        floats(inner, rank + 32),
        floats(rank, inner),
        floats(inner, 16),
        floats(inner),
        floats(inner, hidden),
        floats(hidden, vocab),
    )
    measured = xla_flops(forward, params, jax.ShapeDtypeStruct((length,), jnp.int32))
    config = of_family("mamba", num_layers=1, hidden_dim=80)
    assert cost.forward_flops(config, 1, length) == pytest.approx(measured, rel=0.05)


def test_flops_are_those_of_the_compiled_rwkv():
    hidden, inner, length, vocab = 80, 200, 6, 100

    def norm(x):
        x = x - jnp.mean(x, axis=-1, keepdims=True)
        return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-5)

    def forward(params, tokens):
        embedding, squares, up, down, head, vectors = params
        key, value, receptance, output, gate = squares
        decay, bonus, *mixes, scale, bias = vectors
        affine = lambda x: norm(x) * scale[None] + bias[None]

        def mixed(x, mix):
            before = jnp.pad(x, ((1, 0), (0, 0)))[:-1]
            return x * mix[None] + before * (1 - mix)[None]

        x = affine(embedding[tokens])
        y = affine(x)
        k, v = mixed(y, mixes[0]) @ key, mixed(y, mixes[1]) @ value
        r = jax.nn.sigmoid(mixed(y, mixes[2]) @ receptance)
        top, bottom, most = jnp.zeros(hidden), jnp.zeros(hidden), jnp.zeros(hidden)
        outputs = []
        for t in range(length):  # unrolled: XLA counts a loop's body once
            now = jnp.maximum(most, bonus + k[t])
            old, new = jnp.exp(most - now), jnp.exp(bonus + k[t] - now)
            outputs.append((old * top + new * v[t]) / (old * bottom + new))
            then = jnp.maximum(most + decay, k[t])
            old, new = jnp.exp(most + decay - then), jnp.exp(k[t] - then)
            top, bottom, most = old * top + new * v[t], old * bottom + new, then
        x = x + (r * jnp.stack(outputs)) @ output
        y = affine(x)
        wide = jnp.square(jax.nn.relu(mixed(y, mixes[3]) @ up))
        x = x + jax.nn.sigmoid(mixed(y, mixes[4]) @ gate) * (wide @ down)
        return affine(x) @ head

    params = (
        floats(vocab, hidden),
        [floats(hidden, hidden)] * 5,
        floats(hidden, inner),
        floats(inner, hidden),
        floats(hidden, vocab),
        [floats(hidden)] * 9,
    )
    measured = xla_flops(forward, params, jax.ShapeDtypeStruct((length,), jnp.int32))
    config = of_family("rwkv", num_layers=1, hidden_dim=hidden, vocab_size=vocab)
    counted = cost.forward_flops(config, 1, length)
    assert counted == pytest.approx(measured, rel=0.03)


def test_flops_are_those_of_the_compiled_linear_attention():
    hidden, heads, chunk = 96, 4, CHUNK
    size, length = hidden // heads, 2 * chunk

    def mixer(x, query, key, value, out):
        split = lambda y: y.reshape(2, chunk, heads, size)
        features = [split(jax.nn.elu(x @ kernel) + 1) for kernel in (query, key)]
        chunks, outputs = zip(*features, split(x @ value), strict=True), []
        state, norm = jnp.zeros((heads, size, size)), jnp.zeros((heads, size))
        for q, k, v in chunks:
            seen = jnp.tril(jnp.einsum("tnh,snh->nts", q, k))
            top = jnp.einsum("nts,snh->tnh", seen, v)
            top = top + jnp.einsum("tnh,nhe->tne", q, state)
            bottom = seen.sum(-1).T + jnp.einsum("tnh,nh->tn", q, norm)
            outputs.append((top / bottom[..., None]).reshape(chunk, hidden))
            state = state + jnp.einsum("snh,sne->nhe", k, v)
            norm = norm + k.sum(0)
        return jnp.concatenate(outputs) @ out

    squares = [floats(hidden, hidden)] * 4
    measured = xla_flops(mixer, floats(length, hidden), *squares)
    config = of_family("linear_transformer", num_layers=1, position_encoding="absolute")
    ops = cost.list_ops(cost.sizes_of(config), cost.forward(1, length))
    others = {"embedding", "positions", "norm", "residual", "up", "gate"}
    others |= {"activation", "down", "head"}
    counted = sum(op.count * op.flops for op in ops if op.name not in others)
    assert counted == pytest.approx(measured, rel=0.03)


def test_a_training_step_costs_three_forward_passes_before_pruning():
    pruned = dataclasses.replace(SMALL, pruning_ratio=0.5)
    assert cost.forward_flops(pruned, 2, 32) < cost.forward_flops(SMALL, 2, 32)
    assert cost.training_flops(pruned, 2, 32) == 3 * cost.forward_flops(SMALL, 2, 32)


def test_flops_do_not_overflow():
    flops = cost.training_flops(LLAMA_7B, batch=10**9, tokens=4096)
    assert isinstance(flops, int)
    assert flops > 2**63
    assert flops == 10**9 * cost.training_flops(LLAMA_7B, batch=1, tokens=4096)


@pytest.mark.parametrize("family", FAMILIES)
def test_state_bytes_are_those_of_the_module(family):
    config = of_family(family, kv_heads=2)
    for dtype, width in ((jnp.float32, 4), (jnp.bfloat16, 2)):
        make = functools.partial(init_states, config, 3, 50, dtype)
        leaves = jax.tree.leaves(jax.eval_shape(make).blocks)
        held = [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.inexact)]
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in held)
        assert cost.state_bytes(config, 3, 50, width) == size


def test_states_of_published_models():
    # Llama 2 7B: half a MiB a token in fp16. Mistral: an eighth of a MiB.
    assert cost.state_bytes(LLAMA_7B, 1, 1) == 2**19
    assert cost.state_bytes(LLAMA_7B, 3, 4096) == 3 * 2**31
    assert cost.state_bytes(KNOWN["Mistral-7B"].config, 1, 1) == 2**17
    # Whatever was read: 3 inputs in fp16 and 16 float32 states; for RWKV 2 and 3.
    for name, state in (
        ("Mamba-130m", 24 * 1536 * (3 * 2 + 16 * 4)),
        ("RWKV-4-169m", 12 * 768 * (2 * 2 + 3 * 4)),
    ):
        config = KNOWN[name].config
        assert cost.state_bytes(config, 1, 1) == state
        assert cost.state_bytes(config, 2, 4096) == 2 * state


def test_the_state_of_linear_attention():
    # Of each of 4 heads [24, 24] and [24], in float32, in 3 layers.
    config = of_family("linear_transformer")
    assert cost.state_bytes(config, 2, 7) == 3 * 2 * 4 * (24 * 24 + 24) * 4


def test_chunks_and_blocks_are_those_of_the_modules():
    assert attention_costs.BLOCK == flash.BLOCK
    assert attention_costs.DENSE_TOKENS == flash.DENSE_TOKENS
    assert CHUNK == linear_attention.CHUNK
