"""Every setting of a run: its default, its bounds, its help."""

import dataclasses
import functools
from typing import Any, TypeAlias, get_args, get_type_hints

from jaxnas.checks import fault
from jaxnas.errors import UsageError
from jaxnas.presets import (
    LATENCY_NAMES,
    PRESETS,
    SEARCHES,
    SPACE_FILE,
    SPACE_NAMES,
    STRATEGY_NAMES,
    search_of,
)
from jaxnas.targets import in_words as targets_in_words
from jaxnas.wording import listed

Values: TypeAlias = dict[str, Any]  # settings by name, as they were written


def _by_space(name: str, unset: str | None = "none") -> str:
    """What a setting is by default on each space, for the help.

    Where a space does not set it, it is `unset`, or left out.
    """
    found: dict[object, list[str]] = {}
    for space, search in (*SEARCHES.items(), ("your own", search_of(""))):
        if (value := search.get(name, unset)) is not None:
            found.setdefault(value, []).append(space)
    return ", ".join(f"{value} on {listed(names)}" for value, names in found.items())


def setting(
    default: Any, group: str, text: str, *, value: str = "NAME", **bounds: Any
) -> Any:
    """A field with its help text and bounds.

    Args:
      default: None is filled by the preset.
      group: the flag's heading.
      text: for the help.
      value: what the flag of a text takes, for the help.
      **bounds: of least, above, below, most, among and ending, those that hold.
    """
    facts = {"group": group, "help": text, "value": value, "bounds": bounds}
    return dataclasses.field(default=default, metadata=facts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fields:
    """The settings as they are declared; `RunConfig` checks them."""

    space: str | None = setting(
        None,
        "search",
        f"{' | '.join(SPACE_NAMES)} | FILE.toml (your own); nano without an "
        "accelerator, else modern",
        among=SPACE_NAMES,
        ending=SPACE_FILE,
        value="SPACE",
    )
    strategy: str | None = setting(
        None,
        "search",
        f"{' | '.join(STRATEGY_NAMES)}; {_by_space('strategy')}",
        among=STRATEGY_NAMES,
    )
    population: int | None = setting(
        None,
        "search",
        f"candidates asked for per generation; {_by_space('population')}",
        least=1,
        most=2**16,
    )
    generations: int | None = setting(
        None,
        "search",
        f"generations to search for; {_by_space('generations')}",
        least=1,
        most=2**20,
    )
    max_evals: int | None = setting(
        None,
        "search",
        "distinct candidates after which the search ends, failed ones too, where the "
        "generations do not end it before",
        least=1,
    )
    budget: str | None = setting(
        None,
        "search",
        "time that the whole run may take, such as 90s, 30m or 2h30m: phases, "
        "population, generations and final-steps that are left open are planned to fit",
        value="TIME",
    )
    patience: int | None = setting(
        None,
        "search",
        "generations in a row without a better winner, nor a larger front where no "
        "limits decide, after which the search ends",
        least=1,
    )
    target: str | None = setting(
        None,
        "search",
        f"METRIC=X, several with commas between: the search ends after the generation "
        f"in which a candidate reaches all of them; {targets_in_words()}",
        value="METRIC=X,...",
    )
    warm_start: str | None = setting(
        None,
        "search",
        "folder of an earlier run whose results the strategy is told",
        value="RUN",
    )
    seed: int = setting(
        0, "search", "decides every random choice of the run", least=0, most=2**32 - 1
    )
    elite_share: float | None = setting(
        None,
        "search",
        "of the population that survives; genetic alone, 0.2",
        least=0,
        most=1,
    )
    tournament_size: int | None = setting(
        None,
        "search",
        "candidates that compete to be a parent; genetic alone, 3",
        least=1,
        most=2**16,
    )
    crossover_rate: float | None = setting(
        None,
        "search",
        "how likely a child mixes its parents; nsga2 0.9, genetic 0.7, no other",
        least=0,
        most=1,
    )
    mutation_rate: float | None = setting(
        None,
        "search",
        "how likely each gene changes; nsga2 0.1, genetic 0.3, no other",
        least=0,
        most=1,
    )
    max_size: float | None = setting(
        None,
        "search",
        f"MiB; no larger candidate is proposed; {_by_space('max_size')}. With this or "
        "max-latency the most accurate wins",
        above=0,
    )
    max_latency: float | None = setting(
        None,
        "search",
        f"ms, of the latency that is asked for; no slower candidate is proposed; "
        f"{_by_space('max_latency')}",
        above=0,
    )

    data: str = setting(
        "stdlib",
        "data",
        "stdlib (this Python's library) | folder:PATH (your code, or one file) | "
        "pypi:NAME==VERSION,... (the source in published wheels) | parquet:PATH | "
        "hf:NAME@COMMIT (a data set); behind it +include:*.py,*.md says what is read, "
        "+without:PATH,... leaves out what overlaps with HumanEval's or MBPP's file, "
        "+weight:W reads its training files so often; several with semicolons between",
        value="SOURCE",
    )
    vocab_size: int | None = setting(
        None, "data", "tokens of the byte-level BPE", least=257, most=65536
    )
    eval_windows: int | None = setting(
        None, "data", "validation windows that score a candidate", least=1, most=2**20
    )
    final_windows: int | None = setting(
        None,
        "data",
        "validation and test windows that score the winner",
        least=1,
        most=2**20,
    )

    preset: str = setting(
        "auto",
        "training",
        "small | standard | auto (small without an accelerator)",
        among=("auto", *PRESETS),
    )
    phases: str | None = setting(
        None,
        "training",
        "trainings of a candidate, each going on with the best of the one before: of "
        f"fast, medium, full, SAMPLES or SAMPLESxEPOCHS; {_by_space('phases')}",
        value="A,B,...",
    )
    samples: int | None = setting(
        None, "training", "windows seen, instead of a lone phase's", least=1
    )
    epochs: int | None = setting(
        None, "training", "times each is seen, instead of a lone phase's", least=1
    )
    promote_share: float | None = setting(
        None,
        "training",
        f"of a phase's candidates that the next one takes; "
        f"{_by_space('promote_share')}",
        above=0,
        most=1,
    )
    promote_by: str = setting(
        "now",
        "training",
        "their quality at the phase's end, or as its curve predicts it: now | curve",
        among=("now", "curve"),
    )
    lucky: int | None = setting(
        None,
        "training",
        f"others that each phase takes at random, to learn what it lost; "
        f"{_by_space('lucky')}",
        least=0,
        most=2**16,
    )
    repeats: int | None = setting(
        None,
        "training",
        f"trainings of the winner from other seeds, to learn how much is noise; "
        f"{_by_space('repeats', unset=None)}, 0 with a budget, else 2 with several "
        f"phases",
        least=0,
        most=2**10,
    )
    flat: float = setting(
        0.001,
        "training",
        "share of its loss that a training has to win over half of a phase to go on",
        least=0,
        below=1,
    )
    recovery_share: float = setting(
        0.1,
        "training",
        "of a phase's steps, that pruned models train on for",
        least=0,
        most=1,
    )
    window: int | None = setting(
        None, "training", "tokens in a sample", least=1, most=2**20
    )
    batch: int | None = setting(
        None, "training", "samples in a step", least=1, most=2**16
    )
    learning_rate: float | None = setting(
        None,
        "training",
        "AdamW's at its peak, for matrices in a model of width 64; wider ones take "
        "64 / width of it, embeddings, heads and vectors four times it",
        above=0,
    )
    weight_decay: float = setting(0.1, "training", "AdamW's, on matrices", least=0)
    beta2: float = setting(0.99, "training", "AdamW's", above=0, below=1)
    clip_norm: float = setting(1.0, "training", "of the whole gradient", above=0)
    warmup_share: float = setting(
        0.1, "training", "of the steps, the first ones", least=0, most=1
    )
    decay_share: float | None = setting(
        None,
        "training",
        "of the steps, the last ones; 0.2 with several phases, else 0.9",
        least=0,
        most=1,
    )
    steps_per_call: int = setting(
        20, "training", "steps between looks at the loss", least=1, most=2**16
    )
    memory_limit: float | None = setting(
        None, "training", "MiB of a device that may be used; 80 % of it", above=0
    )
    final_steps: int | None = setting(
        None,
        "training",
        f"steps that the winner trains on for; 0 for none; "
        f"{_by_space('final_steps', unset=None)}",
        least=0,
        most=2**28,
    )
    baseline: bool = setting(
        True,
        "training",
        "train a usual Llama-like model beside the winner, and compare the two",
    )

    accuracy_weight: float | None = setting(
        None, "fitness", "of the accuracy score; 1 with limits, else 0.5"
    )
    size_weight: float | None = setting(
        None, "fitness", "of the size score; 0 with limits, else 0.3"
    )
    latency_weight: float | None = setting(
        None, "fitness", "of the latency score; 0 with limits, else 0.2"
    )
    size_target: float | None = setting(
        None, "fitness", "MiB up to which the size score is 1"
    )
    size_limit: float | None = setting(
        None, "fitness", "MiB from which the size score is 0"
    )
    latency_target: float | None = setting(
        None,
        "fitness",
        "ms up to which the latency score is 1; decode has a tenth of these",
    )
    latency: str | None = setting(
        None,
        "fitness",
        f"{' | '.join(LATENCY_NAMES)}, the latter two calibrated on this device; "
        f"{_by_space('latency')}",
        among=LATENCY_NAMES,
    )
    objectives: str | None = setting(
        None,
        "fitness",
        "your own, minimised beside ours: module:function, several with commas between",
        value="MODULE:FUNCTION",
    )
    hardware: str = setting(
        "auto", "fitness", "whose latency is estimated; auto: this run's device"
    )

    top_k: int = setting(
        5, "output", "candidates in the closing table", least=1, most=2**16
    )
    measure_top: int | None = setting(
        None,
        "output",
        "best candidates whose latency is measured at the end; 1 with estimate, "
        "else top-k",
        least=0,
        most=2**16,
    )
    checkpoint_every: int = setting(
        5, "output", "generations between checkpoints", least=1
    )
    keep_checkpoints: int = setting(
        3, "output", "checkpoints kept, the newest", least=1
    )


@functools.cache
def _kinds() -> dict[str, type]:
    hints = get_type_hints(Fields)
    return {name: (get_args(hint) or (hint,))[0] for name, hint in hints.items()}


def kind_of(field: dataclasses.Field) -> type:
    """The field's type; None, the open value, set aside."""
    return _kinds()[field.name]


def check(field: dataclasses.Field, value: Any) -> None:
    """Raises UsageError for what is no value of the field."""
    if value is None and field.default is None:
        return  # open
    kind, name = kind_of(field), field.name
    if (wrong := fault(value, kind, **field.metadata["bounds"])) is not None:
        raise UsageError(f"{name}={value!r} {wrong}")
    if kind is int and value >= 2**32:
        raise UsageError(f"{name} must be below 2**32")
