"""Small models to compress, trained on this Python's standard library.

    python experiments/compress/base.py --out DIR [--seeds 3]

Writes DIR/small-SEED, folders of saved models; those that are there stay.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from arch import ArchitectureConfig, Params
from jaxnas.data import Dataset, prepare
from jaxnas.export.model_folder import LoadedModel, load_model, save_model
from jaxnas.pipeline.compress import trained_on
from jaxnas.pipeline.corpus_task import shared_task
from jaxnas.runtime import set_up
from jaxnas.training.scoring import score_stored
from jaxnas.training.settings import TrainSettings
from jaxnas.training.single import starting_state
from jaxnas.training.task import Task

SMALL = ArchitectureConfig(
    arch_type="transformer",
    num_layers=3,
    hidden_dim=64,
    num_heads=4,
    ffn_multiplier=4.0,
    normalization="rmsnorm",
    activation="swiglu",
    position_encoding="rope",
    vocab_size=1024,
    max_seq_length=64,
)
SETTINGS = TrainSettings(window=64, batch=8, learning_rate=0.006)
STEPS, WINDOWS = 2000, 512


def main() -> None:
    """Trains what is not there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    set_up()
    dataset = prepare("stdlib", SMALL.vocab_size)
    for seed in range(options.seeds):
        folder = options.out / f"small-{seed}"
        if not folder.exists():
            task = shared_task(dataset, SETTINGS, seed)
            params = starting_state(SMALL, task).params
            params = trained_on(SMALL, task, params, STEPS)
            save_model(folder, SMALL, params, dataset.tokenizer)
            print(folder, f"{bits(SMALL, task, params):.4f} bits/byte", flush=True)


def small_models(folder: Path) -> Iterator[tuple[int, LoadedModel, Dataset]]:
    """The seed, the model and its data, of each in the folder."""
    for path in sorted(folder.glob("small-*")):
        model = load_model(path)
        dataset = prepare("stdlib", SMALL.vocab_size, tokenizer=model.tokenizer)
        yield int(path.name.split("-")[1]), model, dataset


def bits(config: ArchitectureConfig, task: Task, params: Params) -> float:
    """Bits/byte of weights as they are, on validation windows."""
    windows = task.windows("validation", WINDOWS)
    metrics = score_stored(config, task, params, windows).metrics()
    if metrics is None:
        raise SystemExit("the loss is not finite")
    return metrics.bits_per_byte


if __name__ == "__main__":
    main()
