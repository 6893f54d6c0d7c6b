"""A saved model's task on a corpus, and the facts of it that a folder keeps."""

from arch import ArchitectureConfig
from arch.decoding.generate import position_limit
from jaxnas.data import Dataset
from jaxnas.errors import UsageError
from jaxnas.pipeline.build import check_window
from jaxnas.pipeline.manifest import versions
from jaxnas.runtime import compute_dtype
from jaxnas.storage.files import write_json
from jaxnas.storage.inputs import read_json
from jaxnas.storage.run_folder import RunFolder
from jaxnas.training.devices import Devices, local_devices
from jaxnas.training.settings import TrainSettings
from jaxnas.training.task import Task


def shared_task(
    dataset: Dataset,
    settings: TrainSettings,
    seed: int,
    devices: Devices | None = None,
) -> Task:
    """A task whose batches are shared by devices.

    By default by as many of this host's as split them.

    Raises:
      UsageError: those that are given do not, or the corpus holds no whole window.
    """
    part = settings.batch // settings.accumulate
    devices = local_devices(part) if devices is None else devices
    if part % devices.number:
        raise UsageError(
            f"--batch {settings.batch} in {settings.accumulate} parts does not split "
            f"among {devices.number} devices"
        )
    check_window(settings.window, dataset)
    return Task(
        dataset=dataset,
        settings=settings,
        seed=seed,
        dtype=compute_dtype(),
        devices=devices,
    )


def check_positions(
    config: ArchitectureConfig, window: int, name: str, advice: str = ""
) -> None:
    """Refuses windows that are longer than what a model's positions were trained for.

    Raises:
      UsageError: they are; it says the model's `name`, and the advice.
    """
    limit = position_limit(config)
    if limit is not None and window > limit:
        raise UsageError(
            f"--window {window} is longer than the {limit} tokens that the positions "
            f"of {name} were trained for{advice}"
        )


def keep_facts(folder: RunFolder, dataset: Dataset) -> None:
    """Writes what it is trained on and with; refuses to go on with other data."""
    facts = dataset.describe()
    if not folder.manifest.exists():
        write_json(folder.manifest, {**versions(), "data": facts})
        return
    try:
        known = read_json(folder.manifest)["data"]
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"{folder.manifest} is damaged: it is no manifest") from None
    for name in ("corpus_hash", "tokenizer_hash"):
        if known.get(name) != facts[name]:
            raise UsageError(
                f"{folder.path} was begun with other data: the {name} of "
                f"{dataset.spec} has changed"
            )
