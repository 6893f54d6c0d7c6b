"""Decoded tokens a second of every family, greedy, with `arch.decoding.generate`."""

import jax
import jax.numpy as jnp
import numpy as np
from on_gpu.report import Report, at_once, clock, print_table
from on_gpu.training import config_of

from arch import build_model
from arch.decoding.generate import generate
from arch.decoding.unrolled import unstack
from arch.families import FAMILIES
from arch.initial import draw_parameters

PROMPT, NEW = 32, 128


def run(report: Report):
    """All programs are compiled first, side by side."""
    new = 8 if report.small else NEW
    batches = (2,) if report.small else (1, 8)
    families = ("transformer", "mamba", "rwkv") if report.small else FAMILIES
    cases = [(family, batch) for family in families for batch in batches]
    dtype = jnp.dtype("bfloat16")
    weights = {family: weights_of(family, report.small) for family in families}

    def call(family: str, batch: int):
        config = config_of(family, PROMPT + NEW, report.small)
        rng = np.random.default_rng(0)
        prompts = rng.integers(0, config.vocab_size, (batch, PROMPT)).tolist()
        return generate(
            jax.random.key(0),
            config,
            weights[family],
            prompts,
            max_new=new,
            dtype=dtype,
        )

    jobs = {case: lambda case=case: call(*case) for case in cases}
    drawn = at_once(jobs, report)
    rows = []
    for case in cases:
        family, batch = case
        if case not in drawn or not report.has_time(f"{family}, batch {batch}", 2):
            continue
        again = call(*case)
        if not np.array_equal(again.tokens, drawn[case].tokens):
            report.fail(f"{family}, batch {batch}: two runs drew different tokens")
        calls = {"": lambda case=case: call(*case).tokens}
        seconds = clock(calls, seconds=0.1 if report.small else 1.0)[""]
        rows.append(
            {
                "family": family,
                "batch": batch,
                "ms_per_token": 1e3 * seconds / new,
                "tokens_per_second": batch * new / seconds,
            }
        )
        report.keep("rows", rows)
    columns = {"family": "", "batch": "d", "ms_per_token": ".3f"}
    title = f"Decoding in bfloat16, greedy, {new} new tokens after {PROMPT}, reading in"
    print_table(title, rows, columns | {"tokens_per_second": ",.0f"})


def weights_of(family: str, small: bool):
    """Random ones, float32 as they are trained."""
    config = config_of(family, PROMPT + NEW, small)
    drawn = draw_parameters(build_model(config), jax.random.key(0))
    return unstack(jax.tree.map(jnp.asarray, drawn))
