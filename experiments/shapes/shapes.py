"""Thirty open models against the search: how much better does it claim to be?

For each model: among all shapes of its family with at most its parameters and its
decoding latency (one A100, fp16, batch 1, 2,048 tokens remembered), the one with the
least predicted loss, by the law of parameters alone and by the law that knows shape.

    python experiments/shapes/shapes.py [--json FILE]
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import jax
import numpy as np

from arch.cost import HARDWARE, decode_ms, parameters
from arch.cost.sizes import Sizes, sizes_of
from arch.open_models import OPEN_MODELS, OpenModel
from arch.scaling.predicted_loss import predicted_loss
from arch.scaling.shape import (
    aspect_ratio,
    plain_ffn_ratio,
    saturating_depth,
    shape_penalty,
)
from jaxnas.automl.problem import Problem
from jaxnas.automl.search import EXHAUSTIVE, search_shapes
from jaxnas.automl.spec import make_spec

DEVICE, CONTEXT, TOKENS = "a100", 2048, 1e12
RATIOS = [quarters / 4 for quarters in range(8, 33)]


def spec_of(model: OpenModel, *, shape: bool):
    """Shapes around the model, within its parameters and latency."""
    config = model.config
    hidden, heads = config.hidden_dim, config.num_heads
    step = max(64, hidden // 32 // 64 * 64)
    dimensions = {
        "hidden_size": sorted(
            {
                *range(max(step, hidden // 2 // step * step), 2 * hidden + 1, step),
                hidden,
            }
        ),
        "num_layers": {"min": max(1, model.layers // 4), "max": 2 * model.layers},
        "num_heads": {"min": 1, "max": 4 * heads},
        "head_size": sorted({64, 96, 128, config.head_dim}),
        "ffn_multiplier": sorted({*RATIOS, model.ffn_dim / hidden}),
    }
    if config.arch_type == "grouped_query_attention":
        dimensions["kv_heads"] = sorted({1, 2, 4, 8, model.kv_heads})
    spec = make_spec(
        {
            "family": config.arch_type,
            "dimensions": dimensions,
            "model": {
                "vocab_size": model.vocab,
                "context": CONTEXT,
                "activation": config.activation,
                "tie_embeddings": model.tied,
            },
            "training": {"tokens": TOKENS},
            "deployment": {"hardware": DEVICE},
            "constraints": {
                "params": {"max": parameters(config)},
                "decode": {"max": decode_ms(config, HARDWARE[DEVICE], 1, CONTEXT)},
            },
        }
    )
    return dataclasses.replace(spec, use=dataclasses.replace(spec.use, shape=shape))


def best_of(model: OpenModel, *, shape: bool):
    """The shape with the least predicted loss; of equals the fastest."""
    problem = Problem(spec_of(model, shape=shape), ("performance", "latency"))
    found = search_shapes(problem, EXHAUSTIVE, 0, 1, jax.random.key(0))
    front = found.front
    row = int(np.argmin(front.values["loss"]))
    config = problem.shapes.config(front.genomes[row])
    return config, float(front.values["loss"][row]), found.evaluated


def ratios(own: Sizes, other: Sizes) -> float:
    """How many times two shapes differ at most, in aspect and feed-forward ratio."""
    logs = [
        np.log(measure(own) / measure(other))
        for measure in (aspect_ratio, plain_ffn_ratio)
    ]
    return float(np.exp(np.abs(logs).max()))


def row_of(model: OpenModel) -> dict:
    """One model beside what the search would have in its place."""
    config = model.config
    sizes = sizes_of(config)
    plain = predicted_loss(config, TOKENS)
    row = {
        "name": model.name,
        "checkpoint": model.checkpoint,
        "source": model.source,
        "parameters": parameters(config),
        "shape": words(config),
        "aspect": aspect_ratio(sizes),
        "depth": model.layers / saturating_depth(sizes.hidden),
        "ffn": plain_ffn_ratio(sizes),
        "penalty": float(shape_penalty(sizes)),
        "loss": plain,
    }
    for name, shape in (("parameters alone", False), ("with shape", True)):
        best, loss, evaluated = best_of(model, shape=shape)
        own = plain * (1 + shape * row["penalty"])
        row[name] = {
            "shape": words(best),
            "claimed": 1 - loss / own,
            "times": ratios(sizes, sizes_of(best)),
            "shapes": evaluated,
        }
    return row


def words(config) -> str:
    """Width x layers, heads/key-value heads x size of a head, feed-forward ratio."""
    ratio = config.inner_channels / config.hidden_dim
    return (
        f"{config.hidden_dim}x{config.num_layers} "
        f"{config.num_heads}/{config.key_value_heads}x{config.head_dim} {ratio:.3g}"
    )


def main() -> None:
    """Prints a table in Markdown, and how far the claims go."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    begin = time.perf_counter()
    rows = [row_of(model) for model in OPEN_MODELS]
    best = "best | claimed | x"
    print(
        "| model | params | shape | aspect | depth | FFN | penalty | "
        f"parameters alone: {best} | with shape: {best} |"
    )
    print("|---|" + "---:|" * 12)
    for row in rows:
        cells = [
            row["name"],
            f"{row['parameters'] / 1e9:.3g}B",
            row["shape"],
            f"{row['aspect']:.0f}",
            f"{row['depth']:.2f}",
            f"{row['ffn']:.1f}",
            f"{100 * row['penalty']:.2f} %",
        ]
        for name in ("parameters alone", "with shape"):
            own = row[name]
            cells += [own["shape"], f"{100 * own['claimed']:.2f} %"]
            cells.append(f"{own['times']:.1f}")
        print("| " + " | ".join(cells) + " |")
    for name in ("parameters alone", "with shape"):
        claimed = np.asarray([100 * row[name]["claimed"] for row in rows])
        times = np.asarray([row[name]["times"] for row in rows])
        print(
            f"{name}: claims {np.median(claimed):.2f} % lower loss in the median, "
            f"{claimed.max():.2f} % at most, {(claimed <= 1).sum()} of {len(rows)} "
            f"within 1 %; shapes {np.median(times):.2f} times from the model's in the "
            f"median, {times.max():.1f} at most"
        )
    print(f"{time.perf_counter() - begin:.0f} s")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
