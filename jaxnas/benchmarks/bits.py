"""Bits per byte of held-out files, whatever a model's tokenizer."""

import lzma

from arch.decoding.generate import position_limit
from jaxnas.data import prepare, score_bigram, score_unigram
from jaxnas.data.dataset import Dataset
from jaxnas.errors import UsageError
from jaxnas.export.model_folder import LoadedModel
from jaxnas.runtime import compute_dtype
from jaxnas.storage.jsonl import Json
from jaxnas.training.scoring import score_stored
from jaxnas.training.settings import TrainSettings
from jaxnas.training.task import Task

_BATCH = 1  # nothing is trained


def bits(model: LoadedModel, data: str, number: int, most: int | None = None) -> Json:
    """Bits per byte and next-token accuracy on a source's test files.

    Windows are as long as the model's own; each window's first token is context
    alone. A token bigram of the same tokens, counted on the training files, is what
    to beat; what `xz` makes of all test files stands beside it.

    Args:
      model: as it is stored.
      data: the source.
      number: of windows at most, evenly spaced.
      most: tokens of a window; None for as many as the model reads.

    Raises:
      UsageError: the files hold no whole window.
    """
    config = model.config
    dataset = prepare(data, config.vocab_size, tokenizer=model.tokenizer)
    window = position_limit(config) or config.max_seq_length
    window = window if most is None else min(window, most)
    task = _task(dataset, window)
    if len(dataset.test) <= window:
        raise UsageError(f"{data} has less than a window of {window} test tokens")
    windows = task.windows("test", number)
    metrics = score_stored(config, task, model.params, windows).metrics()
    if metrics is None:
        raise UsageError("the model's loss is not finite")
    bigram, unigram = (
        score(dataset.train, windows, dataset.token_bytes).bits_per_byte
        for score in (score_bigram, score_unigram)
    )
    return {
        "windows": len(windows),
        "window": window,
        "bits_per_byte": metrics.bits_per_byte,
        "accuracy": metrics.accuracy,
        "bigram": bigram,
        "unigram": unigram,
        "xz": xz_bits(dataset.tokenizer.decode(dataset.test.tolist()).encode()),
    }


def xz_bits(content: bytes) -> float:
    """Bits a byte that `xz -9` leaves, which has seen nothing else."""
    return 8 * len(lzma.compress(content, preset=9)) / len(content)


def _task(dataset: Dataset, window: int) -> Task:
    settings = TrainSettings(window=window, batch=_BATCH, learning_rate=0.0)
    return Task(dataset=dataset, settings=settings, seed=0, dtype=compute_dtype())
