import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import arch
from arch import cost
from arch.baselines import BASELINES
from arch.config import ArchitectureConfig
from arch.families import FAMILIES

SMALL = ArchitectureConfig(
    arch_type="transformer",
    num_layers=3,
    hidden_dim=96,
    num_heads=4,
    ffn_multiplier=2.5,
    normalization="rmsnorm",
    activation="swiglu",
    position_encoding="rope",
    vocab_size=500,
)
MAMBA = dataclasses.replace(SMALL, arch_type="mamba", hidden_dim=80).canonical()
LLAMA_7B = dataclasses.replace(
    SMALL,
    num_layers=32,
    hidden_dim=4096,
    num_heads=32,
    ffn_dim=11008,
    vocab_size=32000,
)
MAMBA_130M = dataclasses.replace(
    MAMBA, num_layers=24, hidden_dim=768, vocab_size=50280, tie_embeddings=True
)
VARIANTS = [
    dataclasses.replace(base, **changes)
    for base, changes in itertools.product(
        (SMALL, MAMBA),
        (
            {},
            {"tie_embeddings": True, "activation": "gelu"},
            {"quantization": "int8", "pruning_ratio": 0.35, "num_layers": 1},
            {"quantization": "int4", "pruning_ratio": 0.9, "vocab_size": 77},
            {"position_encoding": "alibi", "num_heads": 2, "ffn_dim": 50},
            {"hidden_dim": 40, "num_heads": 1, "position_encoding": "absolute"},
        ),
    )
]


def tensors(config, inner):
    """(shape, input axes, quantised) of every stored tensor, written by hand."""
    hidden, heads, vocab = config.hidden_dim, config.num_heads, config.vocab_size
    scale = ((hidden,), (), False)
    if config.arch_type == "mamba":
        rank = math.ceil(hidden / 16)
        block = [
            ((hidden, 2 * inner), (0,), True),
            ((inner, 4), (), False),
            ((inner,), (), False),
            ((inner, rank + 32), (0,), True),
            ((rank, inner), (0,), True),
            ((inner,), (), False),
            ((inner, 16), (), False),
            ((inner,), (), False),
            ((inner, hidden), (0,), True),
            scale,
        ]
    else:
        head_dim = hidden // heads
        block = [
            *[((hidden, heads, head_dim), (0,), True)] * 3,
            ((heads, head_dim, hidden), (0, 1), True),
            *[((hidden, inner), (0,), True)] * (2 if config.gated else 1),
            ((inner, hidden), (0,), True),
            scale,
            scale,
        ]
    ends = [((vocab, hidden), (1,), True), scale]
    if not config.tie_embeddings:
        ends.append(((hidden, vocab), (0,), True))
    return ends + block * config.num_layers


def inner_channels(config):
    return (
        2 * config.hidden_dim
        if config.arch_type == "mamba"
        else (config.feedforward_dim)
    )


def packed_bytes(shape, axes, quantised, quantization):
    """Bytes of an array of blocks that holds a tensor of this shape."""
    if not quantised or quantization == "fp16":
        return np.zeros(shape, np.float16).nbytes
    rows = np.moveaxis(np.zeros(shape, np.int8), axes, range(-len(axes), 0))
    rows = rows.reshape(-1, math.prod(shape[axis] for axis in axes))
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 32)))
    packed = {"int8": (np.int8, 32), "int4": (np.uint8, 16)}[quantization]
    block = np.dtype([("scale", np.float16), ("weights", *packed)])
    return np.zeros(rows.size // 32, block).nbytes


def test_baselines_have_their_known_figures():
    millions = {name: cost.parameters(c) / 1e6 for name, c in BASELINES.items()}
    assert {name: round(value, 1) for name, value in millions.items()} == {
        "gpt2-like": 49.0,
        "llama-like": 69.3,
        "ultra-small": 27.7,
        "mamba": 61.4,
    }
    assert round(cost.size_mib(BASELINES["gpt2-like"]), 1) == 93.5
    assert round(cost.size_mib(BASELINES["mamba"]), 1) == 117.1
    assert all(c.canonical() == c for c in BASELINES.values())


def test_parameters_of_published_models():
    assert cost.parameters(LLAMA_7B) == 6_738_415_616  # Llama 2 7B
    assert cost.parameters(MAMBA_130M) == 129_135_360  # mamba-130m


@pytest.mark.parametrize("config", VARIANTS)
def test_parameters_and_bytes_are_those_of_the_arrays(config):
    inner = inner_channels(config)
    kept = cost.kept_channels(inner, config.pruning_ratio)
    trained, stored = tensors(config, inner), tensors(config, kept)
    count = lambda some: sum(math.prod(shape) for shape, _, _ in some)
    assert cost.parameters(config) == count(trained)
    assert cost.stored_parameters(config) == count(stored)
    ends = (2 - config.tie_embeddings) * config.vocab_size * config.hidden_dim
    assert cost.non_embedding_parameters(config) == count(trained) - ends
    packed = sum(packed_bytes(*tensor, config.quantization) for tensor in stored)
    assert cost.size_bytes(config) == packed
    assert cost.size_mib(config) == packed / 2**20


@pytest.mark.parametrize("config", [c for c in VARIANTS if c.arch_type != "mamba"])
def test_parameters_are_those_of_the_model(config):
    tokens = jax.ShapeDtypeStruct((1, 4), jnp.int32)
    model = arch.build_model(config)
    shapes = jax.eval_shape(model.init, jax.random.key(0), tokens)
    sizes = [leaf.size for leaf in jax.tree.leaves(shapes)]
    assert cost.parameters(config) == sum(sizes)


def test_kept_channels():
    assert cost.kept_channels(512, 0.4) == 320  # 307.2
    assert cost.kept_channels(160, 0.1) == 160  # 144: a half goes up
    assert cost.kept_channels(320, 0.3) == 224  # exactly, though 1 - 0.3 is not 0.7
    assert cost.kept_channels(20, 0.9) == 20  # fewer than a block stay
    assert cost.kept_channels(100, 0.99) == 32
    assert cost.kept_channels(100, 0.01) == 96
    assert isinstance(cost.kept_channels(512, 0.4), int)


def test_kept_channels_are_bounded_monotone_multiples():
    channels = np.arange(1, 700)[:, None]
    ratios = np.linspace(0, 0.999, 223)[None, :]
    kept = cost.kept_channels(channels, ratios)
    assert np.all((kept % 32 == 0) | (kept == channels))
    assert np.all((kept >= np.minimum(channels, 32)) & (kept <= channels))
    assert np.all(np.diff(kept[:, 1:], axis=0) >= 0)
    assert np.all(np.diff(kept, axis=1) <= 0)
    assert np.all(kept[:, 0] == channels[:, 0])
    assert np.all(np.abs(kept - channels * (1 - ratios)) <= 32)
    for row, column in [(0, 3), (99, 40), (511, 80), (698, 222)]:
        one = cost.kept_channels(int(channels[row, 0]), float(ratios[0, column]))
        assert one == kept[row, column]


def test_kept_channels_round_a_half_up_whatever_the_ratio_is_in_binary():
    for channels, tenth in itertools.product(range(32, 2049, 16), range(1, 10)):
        exact = (channels * (10 - tenth) * 2 + 320) // 640 * 32
        wanted = min(max(exact, 32), channels)
        assert cost.kept_channels(channels, tenth / 10) == wanted


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
    ops = cost.list_ops(cost.sizes_of(config), 2, 64)
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
    config = dataclasses.replace(MAMBA, num_layers=1)
    assert cost.forward_flops(config, 1, length) == pytest.approx(measured, rel=0.05)


def test_a_training_step_costs_three_forward_passes_before_pruning():
    pruned = dataclasses.replace(SMALL, pruning_ratio=0.5)
    assert cost.forward_flops(pruned, 2, 32) < cost.forward_flops(SMALL, 2, 32)
    assert cost.training_flops(pruned, 2, 32) == 3 * cost.forward_flops(SMALL, 2, 32)


def test_flops_do_not_overflow():
    flops = cost.training_flops(LLAMA_7B, batch=10**9, tokens=4096)
    assert isinstance(flops, int)
    assert flops > 2**63
    assert flops == 10**9 * cost.training_flops(LLAMA_7B, batch=1, tokens=4096)


def test_kv_cache_of_known_models():
    # Llama 2 7B: half a MiB a token in fp16.
    assert cost.kv_cache_bytes(LLAMA_7B, 1, 1) == 2**19
    assert cost.kv_cache_bytes(LLAMA_7B, 3, 4096) == 3 * 2**31
    # Mamba-130m, whatever was read: 4 inputs in fp16 and 16 float32 states.
    state = 24 * 1536 * (4 * 2 + 16 * 4)
    assert cost.kv_cache_bytes(MAMBA_130M, 1, 1) == state
    assert cost.kv_cache_bytes(MAMBA_130M, 2, 4096) == 2 * state


def test_activation_bytes_where_each_op_is_the_widest():
    long = cost.activation_bytes(SMALL, batch=2, tokens=1024)
    scores, stream = 2 * 4 * 1024**2, 2 * 1024 * 96
    # In the softmax: scores twice; the residual stream and the values wait.
    assert long == 2 * (2 * scores + 2 * stream)
    words = dataclasses.replace(SMALL, vocab_size=5000)
    # In the head: all logits and what they are made of.
    short = cost.activation_bytes(words, batch=2, tokens=8, bytes_per_value=4)
    assert short == 4 * 2 * 8 * (96 + 5000)
    wide = dataclasses.replace(SMALL, ffn_dim=5000)
    # The activation reads two and writes one; the residual stream waits.
    assert cost.activation_bytes(wide, 1, 8) == 2 * 8 * (3 * 5000 + 96)


def column(values):
    return np.asarray(values, np.int64)


def columns_of(configs):
    rows = [cost.sizes_of(config) for config in configs]
    fields = {
        name: column([getattr(row, name) for row in rows])
        for name in cost.Sizes._fields
        if name not in ("arch_type", "storage")
    }
    storage = cost.Storage(*map(column, zip(*[r.storage for r in rows], strict=True)))
    return cost.Sizes(rows[0].arch_type, **fields, storage=storage)


@pytest.mark.parametrize("family", ["transformer", "mamba"])
def test_columns_give_what_single_configs_give(family):
    configs = [config for config in VARIANTS if config.arch_type == family]
    sizes = columns_of(configs)
    single = [cost.sizes_of(config) for config in configs]
    device = cost.HARDWARE["h100"]
    for formula in (
        cost.total_parameters,
        cost.total_bytes,
        lambda s: cost.total_flops(s, 2, 64),
        lambda s: cost.peak_values(s, 2, 64),
        lambda s: cost.total_seconds(s, device, 2, 64),
    ):
        together = formula(sizes)
        assert together.tolist() == [formula(one) for one in single]
    assert cost.total_bytes(sizes).dtype == np.int64


GROWTH = [
    {"num_layers": 4},
    {"hidden_dim": 128},
    {"num_heads": 8},
    {"ffn_multiplier": 3.5},
    {"vocab_size": 501},
    {"quantization": "fp16"},
    {"pruning_ratio": 0.1},
]


@pytest.mark.parametrize("device", cost.HARDWARE.values(), ids=lambda d: d.name)
@pytest.mark.parametrize("changes", GROWTH, ids=str)
def test_latency_grows_with_every_size(changes, device):
    base = dataclasses.replace(SMALL, quantization="int8", pruning_ratio=0.6)
    grown = dataclasses.replace(base, **changes)
    small = cost.latency_ms(base, device)
    assert cost.latency_ms(grown, device) > small
    assert cost.latency_ms(base, device, batch=2) > small
    assert cost.latency_ms(base, device, tokens=129) > small


def test_weights_are_read_at_their_stored_width():
    device = dataclasses.replace(cost.HARDWARE["a100"], launch_seconds=0.0)
    read = {}
    for name in ("fp16", "int8", "int4"):
        config = dataclasses.replace(LLAMA_7B, quantization=name)
        read[name] = cost.latency_ms(config, device, tokens=1)
    assert read["fp16"] / read["int8"] == pytest.approx(16 / 8.5, rel=0.01)
    assert read["fp16"] / read["int4"] == pytest.approx(16 / 4.5, rel=0.01)


@pytest.mark.parametrize("config", VARIANTS)
def test_roofline_limits(config):
    device = dataclasses.replace(cost.HARDWARE["rtx-4090"], launch_seconds=1e-6)
    launches = sum(op.count for op in cost.list_ops(cost.sizes_of(config)))
    compute = dataclasses.replace(device, bandwidth=math.inf)
    flops = cost.forward_flops(config) / device.peak_flops
    assert cost.latency_ms(config, compute) == pytest.approx(
        1e3 * (flops + 1e-6 * launches)
    )
    memory = dataclasses.replace(device, peak_flops=math.inf)
    moved = sum(op.moved_bytes for op in cost.latency_breakdown(config, device))
    assert cost.latency_ms(config, memory) == pytest.approx(
        1e3 * (moved / device.bandwidth + 1e-6 * launches)
    )
    assert moved > cost.size_bytes(config) * 0.4


@pytest.mark.parametrize("config", BASELINES.values(), ids=BASELINES)
def test_breakdown_adds_up(config):
    device = cost.HARDWARE["cpu-core"]
    rows = cost.latency_breakdown(config, device, 2, 64)
    total = sum(row.milliseconds + row.launch_milliseconds for row in rows)
    assert total == pytest.approx(cost.latency_ms(config, device, 2, 64))
    assert sum(row.flops for row in rows) == cost.forward_flops(config, 2, 64)
    assert all(row.count > 0 and row.kind in cost.KINDS for row in rows)
    bound = {row.name: row.compute_bound for row in rows}
    assert bound["head"]
    assert not bound["embedding"]


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"transformer", "mamba"}))
def test_a_family_without_costs_is_named(family):
    config = dataclasses.replace(SMALL, arch_type=family)
    for formula in (
        cost.parameters,
        cost.size_bytes,
        cost.forward_flops,
        cost.kv_cache_bytes,
        lambda c: cost.latency_ms(c, cost.HARDWARE["a100"]),
    ):
        with pytest.raises(ValueError, match=f"'{family}'.*transformer | mamba"):
            formula(config)


def test_device_kinds_have_profiles():
    assert cost.hardware_for("cpu").name == "cpu-core"
    assert cost.hardware_for("NVIDIA H100 80GB HBM3").name == "h100"
    assert set(cost.DEVICE_KINDS.values()) == set(cost.HARDWARE)
    # Tensor cores x FLOPs a cycle x boost clock.
    for name, units in {
        "rtx-4090": 512 * 128 * 2.52e9,
        "rtx-5090": 680 * 128 * 2.407e9,
        "a100": 432 * 512 * 1.41e9,
        "h100": 528 * 1024 * 1.83e9,
        "h200": 528 * 1024 * 1.83e9,
    }.items():
        assert cost.HARDWARE[name].peak_flops == pytest.approx(units, rel=1e-3)


@pytest.mark.parametrize("kind", ["NVIDIA H100 PCIe", "NVIDIA A100-SXM4-40GB", "TPU"])
def test_an_unknown_device_is_an_error_that_names_the_known(kind):
    with pytest.raises(ValueError, match=f"{kind}.*cpu.*NVIDIA H200"):
        cost.hardware_for(kind)


@pytest.mark.parametrize(
    "changes", [{"bandwidth": 0.0}, {"peak_flops": -1.0}, {"launch_seconds": -1e-6}]
)
def test_a_profile_without_ceilings_is_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        dataclasses.replace(cost.HARDWARE["a100"], **changes)
