"""Two scales of run: a laptop's minutes, and an accelerator's evening."""

from typing import NamedTuple, TypedDict

from jaxnas.training.lengths import PHASES, SMALL_PHASES, PhaseLength


class Preset(NamedTuple):
    """Values for the settings that were left open."""

    settings: dict[str, int | float]
    phases: dict[str, PhaseLength]


PRESETS = {
    # A small vocabulary and short windows, for models that learn something in
    # seconds; and a budget among such models, for scores with a slope.
    "small": Preset(
        {
            "vocab_size": 1024,
            "window": 64,
            "batch": 8,
            "learning_rate": 6e-3,
            "eval_windows": 256,
            "final_windows": 512,
            "final_steps": 300,
            "size_target": 12.0,
            "size_limit": 60.0,
            "latency_target": 16.0,
        },
        SMALL_PHASES,
    ),
    "standard": Preset(
        {
            "vocab_size": 8192,
            "window": 128,
            "batch": 16,
            "learning_rate": 6e-3,
            "eval_windows": 512,
            "final_windows": 2048,
            "final_steps": 20_000,
            "size_target": 100.0,
            "size_limit": 500.0,
            "latency_target": 10.0,
        },
        PHASES,
    ),
}

LONGER = 4  # times a search's windows, that a training from untrained weights has


class Windows(TypedDict):
    """How long windows are, and how many are scored."""

    window: int
    eval_windows: int
    final_windows: int


def longer_windows(window: int, eval_windows: int, final_windows: int) -> Windows:
    """A search's windows for a training: longer ones, and as many tokens to score."""
    return {
        "window": LONGER * window,
        "eval_windows": max(1, eval_windows // LONGER),
        "final_windows": max(1, final_windows // LONGER),
    }


# Known here too, so that a wrong name is found before JAX is imported.
LATENCY_NAMES = ("estimate", "prefill", "decode")
SPACE_NAMES = ("minimal", "medium", "full", "nano", "modern")
SPACE_FILE = ".toml"  # what the name of a space of one's own ends in
PHASE_NAMES = tuple(PHASES)
STRATEGY_NAMES = ("random", "genetic", "nsga2", "aging", "local", "predictor")

NO_LIMIT = 500.0  # MiB; of spaces that are searched without a limit

# How the spaces are searched, unless the settings say otherwise. The strategies by
# experiments/tabular: the predictor is ahead at any number of evaluations.
_LONG: dict[str, int | float | str] = {
    "strategy": "predictor",
    "population": 50,
    "generations": 100,
    "phases": ",".join(PHASE_NAMES),
    "promote_share": 0.25,
    "lucky": 2,
    "latency": "prefill",
    "max_size": NO_LIMIT,
}
# Minutes on two cores, for small models.
_SHORT: dict[str, int | float | str] = {
    "strategy": "predictor",
    "population": 12,
    "generations": 2,
    "phases": "1600,3200",
    "promote_share": 0.125,
    "lucky": 0,
    "latency": "estimate",
    "max_size": NO_LIMIT,
    "final_steps": 1450,
    "repeats": 0,
}
SEARCHES: dict[str, dict[str, int | float | str]] = {
    # Eight models, which need no guide; done before a device is measured.
    "minimal": _LONG
    | {
        "strategy": "genetic",
        "population": 10,
        "generations": 5,
        "phases": "fast",
        "latency": "estimate",
    },
    "medium": _LONG,
    "full": _LONG,
    # Limits that keep a step under a tenth of a second.
    "nano": _SHORT | {"max_size": 1.0, "max_latency": 1.5},
    # The classic target: 100 MB and 10 ms.
    "modern": _LONG | {"generations": 20, "max_size": 95.3, "max_latency": 10.0},
}


# What `ship` searches with instead, of minutes on two cores: a training that is ten
# times as long has use for more tokens than 1,024, see experiments/code-small.
SHIPPED: dict[str, dict[str, float]] = {"nano": {"max_size": 4.0, "max_latency": 5.0}}
VOCABULARIES = (1024, 2048, 4096)
_BYTES_A_TOKEN = 500  # of the corpus, at least, for each token of such a vocabulary


def vocabulary_for(corpus: int) -> int:
    """The largest of `VOCABULARIES` that a corpus of so many bytes can teach."""
    fitting = [size for size in VOCABULARIES if size * _BYTES_A_TOKEN <= corpus]
    return max(fitting, default=VOCABULARIES[0])


def search_of(space: str) -> dict[str, int | float | str]:
    """How a space is searched by default; one of your own, as the small ones."""
    return SEARCHES.get(space, _SHORT | {"generations": 4})


def is_space_file(space: str) -> bool:
    """Whether it is the path of a space of one's own."""
    return space.endswith(SPACE_FILE)


def default_space(backend: str) -> str:
    """The space that is searched unless another is named."""
    return "nano" if backend == "cpu" else "modern"


def phases_of(text: str, preset: str) -> dict[str, PhaseLength]:
    """Phases by their name: named ones, or SAMPLES or SAMPLESxEPOCHS.

    Raises:
      ValueError: the text is neither, or names one twice.
    """
    known, found = PRESETS[preset].phases, {}
    for name in text.split(","):
        name = name.strip()
        numbers = name.split("x")
        if name in found:
            raise ValueError(f"{name} is named twice")
        if name in known:
            found[name] = known[name]
        elif len(numbers) <= 2 and all(n.isascii() and n.isdigit() for n in numbers):
            epochs = int(numbers[1]) if len(numbers) == 2 else 1
            found[name] = PhaseLength(samples=int(numbers[0]), epochs=epochs)
        else:
            raise ValueError(
                f"{name!r} is no phase: {', '.join(known)}, or SAMPLES or "
                f"SAMPLESxEPOCHS"
            )
    return found


# Seconds from which a budget has room for measuring the device first.
CALIBRATING = 1800.0


# A token takes so much less than a prompt of 128: the target of either score.
DECODE_SHARE = 0.1


# What each strategy reads beside the population, with its defaults.
STRATEGY_SETTINGS: dict[str, dict[str, float]] = {
    "random": {},
    "genetic": {
        "elite_share": 0.2,
        "tournament_size": 3,
        "crossover_rate": 0.7,
        "mutation_rate": 0.3,
    },
    "nsga2": {"crossover_rate": 0.9, "mutation_rate": 0.1},  # about one of 12 genes
    "aging": {},
    "local": {},
    "predictor": {},
}


def readers_of(setting: str) -> list[str]:
    """The strategies that read a setting; none for one that is not of strategies."""
    return [name for name, reads in STRATEGY_SETTINGS.items() if setting in reads]


def unread_by(strategy: str) -> list[str]:
    """The settings that are other strategies'."""
    every = {name for reads in STRATEGY_SETTINGS.values() for name in reads}
    return sorted(every - STRATEGY_SETTINGS[strategy].keys())
