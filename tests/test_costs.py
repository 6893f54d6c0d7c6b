import contextlib
import dataclasses
import io
import itertools
import math
import pathlib
import re

import jax
import numpy as np
import pytest
from cost_configs import SMALL, VARIANTS, of_family

from arch import cost
from arch.baselines import BASELINES
from arch.families import FAMILIES


def feedforward_tensors(config, inner):
    hidden = config.hidden_dim
    return [
        *[((hidden, inner), (0,), True)] * (2 if config.gated else 1),
        ((inner, hidden), (0,), True),
    ]


def attention_tensors(config, inner):
    hidden, heads = config.hidden_dim, config.num_heads
    head_dim, kv_heads = (config.attention_dim or hidden) // heads, heads
    if config.arch_type == "grouped_query_attention":
        kv_heads = config.kv_heads or heads // 2
    return [
        ((hidden,), (), False),
        ((hidden, heads, head_dim), (0,), True),
        *[((hidden, kv_heads, head_dim), (0,), True)] * 2,
        ((heads, head_dim, hidden), (0, 1), True),
        ((hidden,), (), False),
        *feedforward_tensors(config, inner),
    ]


def mamba_tensors(config, inner):
    hidden = config.hidden_dim
    rank = math.ceil(hidden / 16)
    return [
        ((hidden,), (), False),
        ((hidden, 2 * inner), (0,), True),
        ((inner, 4), (), False),
        ((inner,), (), False),
        ((inner, rank + 32), (0,), True),
        ((rank, inner), (0,), True),
        ((inner,), (), False),
        ((inner, 16), (), False),
        ((inner,), (), False),
        ((inner, hidden), (0,), True),
    ]


def rwkv_tensors(config, inner):
    hidden = config.hidden_dim
    vectors = 4 + 5 + 2  # of two norms, of the time mix, of the channel mix
    return [
        *[((hidden,), (), False)] * vectors,
        *[((hidden, hidden), (0,), True)] * 5,
        ((hidden, inner), (0,), True),
        ((inner, hidden), (0,), True),
    ]


def tensors(config, inner):
    """(shape, input axes, quantised) of every stored tensor, written by hand."""
    hidden, vocab = config.hidden_dim, config.vocab_size
    own = {"mamba": mamba_tensors, "rwkv": rwkv_tensors}
    block = own.get(config.arch_type, attention_tensors)(config, inner)
    # RWKV norms the embeddings too, and its norms have a bias.
    vectors = 4 if config.arch_type == "rwkv" else 1
    ends = [((vocab, hidden), (1,), True), *[((hidden,), (), False)] * vectors]
    if not config.tie_embeddings:
        ends.append(((hidden, vocab), (0,), True))
    return ends + block * config.num_layers


def inner_channels(config):
    if config.arch_type == "mamba":
        return config.inner_dim or 2 * config.hidden_dim
    return config.ffn_dim or int(config.ffn_multiplier * config.hidden_dim)


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


def test_parameters_before_and_after_pruning_differ_by_the_channels():
    # A channel is a row or a column of each matrix that it passes.
    for family, passes in {
        "transformer": 3 * 96,
        "mamba": 3 * 96 + (6 + 32) + 6 + 4 + 1 + 1 + 16 + 1,
        "rwkv": 2 * 96,
    }.items():
        config = of_family(family, pruning_ratio=0.5, ffn_dim=256, inner_dim=256)
        removed = cost.parameters(config) - cost.stored_parameters(config)
        assert removed == 3 * 128 * passes


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


def test_activation_bytes_of_each_family_where_its_own_ops_are_the_widest():
    def values(family, tokens=8, **changes):
        config = of_family(family, vocab_size=1, **changes)
        return cost.activation_bytes(config, 1, tokens, bytes_per_value=1) / tokens

    stream = 96
    # No gate: the activation reads one and writes one.
    wide = {"ffn_dim": 5000, "activation": "gelu"}
    assert values("transformer", **wide) == 2 * 5000 + stream
    # The value projection: in, out, residual, query and key.
    narrow = {"ffn_dim": 32, "position_encoding": "absolute"}
    assert values("transformer", **narrow) == 5 * stream
    assert values("grouped_query_attention", **narrow, kv_heads=1) == 3.5 * stream
    # Two of squared ReLU; the residual and the receptance's input wait.
    assert values("rwkv", ffn_dim=5000) == 2 * 5000 + 2 * stream
    # The inputs of three projections, of which the shift reads one; residual.
    assert values("rwkv", ffn_dim=32) == 5 * stream
    # The step's softplus; residual, gate, x and its vectors wait.
    assert values("mamba", inner_dim=5000) == 4 * 5000 + 32 + stream
    # Weights twice; residual, values, and features as they are and rotated.
    assert values("linear_transformer", 64) == 2 * 64 * 4 + 6 * stream
    # Sums of 16 chunks, each before and after it, in float32.
    between = 4 * 2 * 16 * 96 * 97 / 1024
    assert values("linear_transformer", 1024, num_heads=1) == 7 * stream + between


def test_only_score_matrices_grow_with_the_square_of_the_tokens():
    growth = {}
    for family in FAMILIES:
        config = of_family(family)
        short, long = (cost.activation_bytes(config, 1, n) for n in (4096, 8192))
        growth[family] = long / short
    dense = {"transformer", "grouped_query_attention"}
    assert {name for name, ratio in growth.items() if ratio > 2} == dense
    assert all(growth[name] > 3.9 for name in dense)
    assert all(growth[name] == 2 for name in set(FAMILIES) - dense)


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


def as_float(field):
    return field if isinstance(field, str) else field.astype(np.float64)


@pytest.mark.parametrize("family", FAMILIES)
def test_columns_give_what_single_configs_give(family):
    configs = [config for config in VARIANTS if config.arch_type == family]
    sizes = columns_of(configs)
    floats = jax.tree.map(as_float, sizes)
    single = [cost.sizes_of(config) for config in configs]
    device = cost.HARDWARE["h100"]
    for formula in (
        cost.total_parameters,
        cost.total_bytes,
        lambda s: cost.total_flops(s, cost.forward(2, 64)),
        lambda s: cost.total_flops(s, cost.decode(2, 64)),
        lambda s: cost.peak_bytes(s, cost.forward(2, 64)),
        lambda s: cost.total_seconds(s, device, cost.forward(2, 64)),
        lambda s: cost.total_seconds(s, device, cost.decode(2, 64)),
        lambda s: sum(cost.state_of(s, 2, 64)),
    ):
        together = formula(sizes)
        assert together.tolist() == [formula(one) for one in single]
        assert formula(floats).tolist() == together.tolist()
    assert cost.total_bytes(sizes).dtype == np.int64


DOCUMENT = (pathlib.Path(__file__).parents[1] / "docs/costs.md").read_text()


def test_the_document_shows_what_its_code_prints():
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    (shown,) = re.findall(r"```text\n(.*?)```", DOCUMENT, re.DOTALL)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    assert printed.getvalue() == shown


def test_the_document_has_the_figures_of_the_baselines():
    for name, config in BASELINES.items():
        row = (
            f"{cost.parameters(config) / 1e6:.1f} M",
            f"{cost.stored_parameters(config) / 1e6:.1f} M",
            f"{cost.size_mib(config):.1f}",
            f"{cost.forward_flops(config) / 128e6:.0f}",
            f"{cost.latency_ms(config, cost.HARDWARE['cpu-core']):.2f}",
        )
        assert f"| {' | '.join((name, *row))} |" in DOCUMENT
