"""How high the peak rate may be when training goes on from a finished model.

    python experiments/compress/further.py --models DIR --out FILE.json

DIR as `base.py` leaves it. Bits/byte on 512 validation windows of the model as it was,
and after so many steps at shares of its own peak rate.
"""

import argparse
import dataclasses
import json
from pathlib import Path

from base import SETTINGS, bits, small_models

from jaxnas.pipeline.compress import trained_on
from jaxnas.pipeline.corpus_task import shared_task
from jaxnas.runtime import set_up

SHARES = (1.0, 0.3, 0.1, 0.03)
STEPS = (100, 600)


def main() -> None:
    """Prints a line a training, writes all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    set_up()
    rows = []
    for seed, model, dataset in small_models(options.models):
        task = shared_task(dataset, SETTINGS, seed + 100)
        row = {"seed": seed, "before": bits(model.config, task, model.params)}
        for share in SHARES:
            rate = share * SETTINGS.learning_rate
            settings = dataclasses.replace(SETTINGS, learning_rate=rate)
            own = dataclasses.replace(task, settings=settings)
            for steps in STEPS:
                params = trained_on(model.config, own, model.params, steps)
                row[f"{share:g} of the rate, {steps} steps"] = bits(
                    model.config, task, params
                )
        print(row, flush=True)
        rows.append(row)
    options.out.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
