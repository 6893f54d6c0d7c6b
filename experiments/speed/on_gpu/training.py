"""Tokens a second of training a model of about 50 MB, and its share of the peak."""

import jax
import jax.numpy as jnp
import numpy as np
from on_gpu.report import Report, at_once, clock, print_table, temporary_bytes

from arch import ArchitectureConfig, build_model
from arch.cost import parameters, size_mib, training_flops
from arch.initial import draw_parameters
from jaxnas.hardware import hardware_named
from jaxnas.training.loop import Schedule, fresh_state, training_functions
from jaxnas.training.settings import TrainSettings

VOCAB, STREAM = 8192, 100_000
STEPS = 10  # of a call

# Family, whether its layers are unrolled (None: as it is by default), T, B.
CASES = [
    ("transformer", None, 128, 256),
    ("transformer", None, 1024, 32),
    ("flash_attention", None, 1024, 32),
    ("transformer", True, 1024, 32),
    ("mamba", None, 1024, 32),
    ("rwkv", None, 1024, 32),
    ("linear_transformer", None, 1024, 32),
    ("grouped_query_attention", None, 1024, 32),
    ("flash_attention", None, 128, 256),
]
TINY = [("transformer", None, 16, 2), ("flash_attention", None, 32, 2)]


def config_of(family: str, tokens: int, small: bool = False) -> ArchitectureConfig:
    """25 M parameters for the transformers."""
    config = ArchitectureConfig(
        arch_type=family,
        num_layers=2 if small else 8,
        hidden_dim=32 if small else 512,
        num_heads=2 if small else 8,
        ffn_multiplier=3.0,
        normalization="rmsnorm",
        activation="gelu",
        position_encoding="rope",
        vocab_size=256 if small else VOCAB,
        max_seq_length=tokens,
        tie_embeddings=True,
    )
    return config.canonical()


def run(report: Report):
    """Case by case, compiled side by side."""
    cases = TINY if report.small else CASES
    dtype = jnp.dtype("bfloat16")
    programs = at_once(
        {name_of(case): lambda case=case: compiled(case, dtype, report.small)
         for case in cases},
        report,
    )  # fmt: skip
    rows = []
    for case in cases:
        name = name_of(case)
        if name in programs and report.has_time(name, 2):
            try:
                rows.append(timed(case, programs[name], report.small))
            except Exception as error:  # any: the other cases still run
                report.fail(f"{name}: {str(error)[:200]}")
            report.keep("rows", rows)
    columns = {"model": "", "parameters": ",d", "size_mib": ".1f", "ms": ".2f"}
    columns |= {"tokens_per_second": ",.0f", "mfu": ".3f", "mfu_6nd": ".3f"}
    title = (
        "Training in bfloat16; mfu by arch.cost, mfu_6nd by 6 N + 12 L D T a token "
        "(N without the embedding, with the head)"
    )
    print_table(title, rows, columns | {"temporary_mib": ",.0f"})


def name_of(case) -> str:
    family, unrolled, tokens, batch = case
    return f"{family}{' unrolled' * bool(unrolled)} {batch} x {tokens}"


def settings_of(case) -> TrainSettings:
    _, _, tokens, batch = case
    return TrainSettings(
        window=tokens, batch=batch, learning_rate=1e-3, steps_per_call=STEPS
    )


def given_to(case, small: bool) -> list:
    """What a call takes, but for the state."""
    family, _, tokens, _ = case
    config, settings = config_of(family, tokens, small), settings_of(case)
    rng = np.random.default_rng(0)
    stream = rng.integers(0, config.vocab_size, STREAM, dtype=np.uint16)
    starts = rng.integers(0, STREAM - tokens, (STEPS, settings.batch), np.int32)
    schedule = jax.tree.map(jnp.float32, Schedule.over(10_000, settings))
    return [
        jnp.asarray(stream),
        jnp.asarray(starts),
        schedule,
        jax.random.key(0),
        jnp.int32(2 if small else STEPS),
    ]


def compiled(case, dtype, small: bool) -> jax.stages.Compiled:
    family, unrolled, tokens, _ = case
    config, settings = config_of(family, tokens, small), settings_of(case)
    model = build_model(config, dtype, unrolled)
    functions = training_functions(model, settings)
    shapes = jax.eval_shape(
        lambda: functions.init(
            model.init(jax.random.key(0), jnp.zeros((1, 8), jnp.int32))["params"]
        )
    )
    given = given_to(case, small)
    return jax.jit(functions.run, donate_argnums=0).lower(shapes, *given).compile()


def timed(case, program: jax.stages.Compiled, small: bool) -> dict:
    family, _, tokens, batch = case
    config, settings = config_of(family, tokens, small), settings_of(case)
    drawn = draw_parameters(build_model(config), jax.random.key(0))
    state = jax.device_put(fresh_state(drawn, settings))
    given = given_to(case, small)
    losses = None

    def call():
        nonlocal state, losses
        state, losses = program(state, *given)
        return losses

    steps = int(given[-1])
    step = clock({"": call}, seconds=0.2 if small else 1.5)[""] / steps
    if not np.isfinite(np.asarray(losses)).all():
        raise FloatingPointError("its loss is not finite")
    peak = hardware_named("auto").peak_flops
    figures = {
        "mfu": training_flops(config, batch, tokens) / step / peak,
        "mfu_6nd": plain_flops(config, batch, tokens) / step / peak,
    }
    return {
        "model": name_of(case),
        "parameters": parameters(config),
        "size_mib": size_mib(config),
        "ms": 1e3 * step,
        "tokens_per_second": batch * tokens / step,
        **figures,
        "temporary_mib": temporary_bytes(program) / 2**20,
    }


def plain_flops(config: ArchitectureConfig, batch: int, tokens: int) -> float:
    """6 N D and attention's (Chowdhery et al. 2022, arXiv:2204.02311, appendix B).

    A tied matrix is the head, so that all parameters are multiplied once.
    """
    attends = "transformer" in config.arch_type or "attention" in config.arch_type
    attends = attends and config.arch_type != "linear_transformer"
    scores = 12 * config.num_layers * config.hidden_dim * tokens * attends
    return batch * tokens * (6 * parameters(config) + scores)
