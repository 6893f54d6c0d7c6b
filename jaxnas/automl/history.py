"""Results of earlier specs, as a start for one that is like them."""

import hashlib
import json
from pathlib import Path

import numpy as np

from jaxnas.automl.dimensions import FIELD_OF
from jaxnas.automl.shapes import Shapes
from jaxnas.automl.spec import Spec
from jaxnas.storage.files import write_whole
from jaxnas.storage.inputs import read_json
from jaxnas.storage.jsonl import Json

MOST_SEEDS = 64


def seeds_from(folder: Path, shapes: Shapes) -> np.ndarray | None:
    """i32[S, G], near the best shapes of the folder's specs of the same family.

    Specs with the most similar limits on parameters come first. None if there is
    nothing to start from; a file that is no result is passed over.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            result = read_json(path)
            if result["spec"]["family"] != shapes.spec.family:
                continue
            rows = [row["config"] for row in result["top"]]
            found.append((_distance(result["spec"], shapes.spec), path.name, rows))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    genomes = [
        shapes.nearest({name: _value(config, name) for name in FIELD_OF})
        for _, _, configs in sorted(found, key=lambda entry: entry[:2])
        for config in configs
    ][:MOST_SEEDS]
    return np.unique(np.stack(genomes), axis=0) if genomes else None


def keep_in(folder: Path, result: Json) -> None:
    """Adds a result, under a name that its content decides."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    write_whole(folder / f"{result['spec']['family']}-{digest}.json", text + "\n")


def _value(config: Json, name: str) -> float:
    value = config[FIELD_OF[name]]
    return 0.0 if value is None else float(value)


def _distance(spec: Json, other: Spec) -> float:
    """How far two specs' limits on parameters are apart, in powers of e."""
    mine = {limit.objective: limit.most for limit in other.limits}.get("params")
    theirs = {limit[0]: limit[2] for limit in spec["limits"]}.get("params")
    if mine is None or theirs is None:
        return 0.0 if mine == theirs else float("inf")
    return abs(float(np.log(mine) - np.log(theirs)))
