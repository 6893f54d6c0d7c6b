"""What the families cost: training, memory, and decoding against transformers.

    python experiments/speed/mixers.py [--small] [--out FILE]

Prints one table for each: forward and backward of every family beside dense
attention; chunked linear attention beside its token scan; decoded tokens a
second beside Hugging Face's `generate` with the same exported weights, if
transformers and torch are installed (the extra `parity`).
"""

import argparse
import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
from rich.table import Table
from timing import race

from arch import ArchitectureConfig, build_model
from arch.families import FAMILIES
from arch.initial import draw_parameters
from arch.mixers.linear_attention import LinearAttention
from arch.traits import traits_of
from jaxnas.commands.options import file_to_write
from jaxnas.report.tables import add_numbers, plain_console, plain_table

DENSE = "transformer"


def config_of(family: str, **changes) -> ArchitectureConfig:
    """Four layers of 256 channels with RoPE, of any family."""
    fields = {
        "arch_type": family,
        "num_layers": 4,
        "hidden_dim": 256,
        "num_heads": 4,
        "ffn_multiplier": 4.0,
        "normalization": "rmsnorm",
        "activation": "swiglu",
        "position_encoding": "rope",
        "vocab_size": 256,
    }
    config = ArchitectureConfig(**(fields | changes))
    return config.canonical()


def training_call(config: ArchitectureConfig, batch: int, tokens: int):
    """A compiled forward and backward pass, and its temporary bytes."""
    model = build_model(config)
    params = jax.tree.map(jnp.asarray, draw_parameters(model, jax.random.key(0)))
    ids = jnp.asarray(np.random.default_rng(0).integers(0, 256, (batch, tokens)))

    def loss(params, ids):
        logits = model.apply({"params": params}, ids)
        return -jax.nn.log_softmax(logits)[..., 0].mean()

    compiled = jax.jit(jax.value_and_grad(loss)).lower(params, ids).compile()
    memory = compiled.memory_analysis().temp_size_in_bytes
    return lambda: compiled(params, ids), memory


def race_training(tokens: int, in_all: int) -> list[dict]:
    """Every family at one length, side by side; `in_all` tokens a call."""
    batch = max(1, in_all // tokens)
    found = {name: training_call(config_of(name), batch, tokens) for name in FAMILIES}
    timings = race({name: call for name, (call, _) in found.items()})
    return [
        {
            "family": name,
            "batch": batch,
            "tokens": tokens,
            "ms": 1e3 * timings[name].median,
            "time_ratio": timings[name].median / timings[DENSE].median,
            "mib": found[name][1] / 2**20,
            "memory_ratio": found[name][1] / found[DENSE][1],
        }
        for name in FAMILIES
    ]


def token_scan(q, k, v):
    """Linear attention as its recurrence, one token after another.

    q, k [B, T, N, H] after the feature map, v [B, T, N, H] -> [B, T, N, H].
    """

    def step(state, token):
        kv, seen = state
        q, k, v = token
        kv = kv + k[..., :, None] * v[..., None, :]
        seen = seen + k
        top = jnp.einsum("bnh,bnhe->bne", q, kv)
        return (kv, seen), top / jnp.einsum("bnh,bnh->bn", q, seen)[..., None]

    rows, _, heads, size = q.shape
    start = jnp.zeros((rows, heads, size, size)), jnp.zeros((rows, heads, size))
    _, y = jax.lax.scan(step, start, [jnp.moveaxis(x, 1, 0) for x in (q, k, v)])
    return jnp.moveaxis(y, 0, 1)


def race_linear(tokens: int) -> dict:
    """The module of chunks beside the same layer as a token scan."""
    config = config_of("linear_transformer", position_encoding="absolute")
    layer, traits = LinearAttention(config, jnp.float32), traits_of(config)
    x = jax.random.normal(jax.random.key(0), (1, tokens, config.hidden_dim))
    params = layer.init(jax.random.key(1), x, None, traits)

    def chunked(params, x):
        return layer.apply(params, x, None, traits)[0]

    def scanned(params, x):
        kernels = {name: leaf["kernel"] for name, leaf in params["params"].items()}
        q, k, v = (
            jnp.einsum("btd,dnh->btnh", x, kernels[name])
            for name in ("query", "key", "value")
        )
        y = token_scan(jax.nn.elu(q) + 1, jax.nn.elu(k) + 1, v)
        return jnp.einsum("btnh,nhd->btd", y, kernels["out"])

    calls, memory = {}, {}
    for name, form in (("chunks", chunked), ("token scan", scanned)):
        loss = lambda params, x, form=form: jnp.square(form(params, x)).sum()
        compiled = jax.jit(jax.value_and_grad(loss)).lower(params, x).compile()
        memory[name] = compiled.memory_analysis().temp_size_in_bytes
        calls[name] = lambda compiled=compiled: compiled(params, x)
    same = [float(jax.jit(form)(params, x).sum()) for form in (chunked, scanned)]
    assert np.isclose(*same, rtol=1e-3), same
    timings = race(calls)
    return {
        "tokens": tokens,
        "chunks_ms": 1e3 * timings["chunks"].median,
        "scan_ms": 1e3 * timings["token scan"].median,
        "faster": timings["token scan"].median / timings["chunks"].median,
        "chunks_mib": memory["chunks"] / 2**20,
        "scan_mib": memory["token scan"] / 2**20,
        "leaner": memory["token scan"] / memory["chunks"],
    }


def training_table(rows: list[dict]) -> Table:
    """Milliseconds and MiB, and both as ratios to dense attention."""
    title = "Forward and backward, d=256, L=4, ratios to dense attention"
    table = plain_table(title, "family")
    add_numbers(table, "batch x tokens", "ms", "time", "MiB", "memory")
    for row in rows:
        table.add_row(
            row["family"],
            f"{row['batch']} x {row['tokens']}",
            f"{row['ms']:.1f}",
            f"{row['time_ratio']:.2f}",
            f"{row['mib']:.1f}",
            f"{row['memory_ratio']:.3f}",
        )
    return table


def linear_table(rows: list[dict]) -> Table:
    """Chunks beside the token scan."""
    title = "Linear attention, forward and backward of one layer, d=256"
    table = plain_table(title)
    columns = ("chunks ms", "scan ms", "faster", "chunks MiB", "scan MiB", "leaner")
    add_numbers(table, "tokens", *columns)
    for row in rows:
        figures = [f"{row[name.replace(' ', '_').lower()]:.1f}" for name in columns]
        table.add_row(str(row["tokens"]), *figures)
    return table


def main():
    """Prints the tables; writes their figures as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="short, to try it out")
    parser.add_argument("--out", type=file_to_write, help="the figures as JSON")
    options = parser.parse_args()
    console = plain_console()
    lengths, in_all = ((64, 128), 128) if options.small else ((128, 512, 2048), 2048)
    device = jax.devices()[0].device_kind
    console.print(f"jax {jax.__version__} on {device}, {jax.default_backend()}")
    training = [row for length in lengths for row in race_training(length, in_all)]
    console.print(training_table(training))
    linear = [race_linear(length) for length in lengths]
    console.print(linear_table(linear))
    figures = {"training": training, "linear": linear}
    if importlib.util.find_spec("torch") and importlib.util.find_spec("transformers"):
        from decoding import decoding_table, race_decoding

        figures["decoding"] = race_decoding(options.small)
        console.print(decoding_table(figures["decoding"]))
    else:
        console.print("no torch and transformers here: decoding is left out")
    if options.out:
        options.out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
