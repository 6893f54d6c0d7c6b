"""What `digits.py` has found, as a page that opens without a network.

    python experiments/mnist/page.py experiments/mnist/result.json digits.html

`digits.py --page FILE` writes it at the end of a search.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from arch import ArchitectureConfig
from arch.families import FAMILIES
from jaxnas.commands.options import file_to_write
from jaxnas.errors import UsageError, reason_of
from jaxnas.report.page.charts import (
    Dot,
    axes,
    captioned,
    dots,
    family_legend,
    picture,
    plot_scales,
    staircase,
)
from jaxnas.report.page.document import document, shared_among, tiles_of
from jaxnas.report.page.scales import Scale, scale_over
from jaxnas.report.page.tags import table, tag, text
from jaxnas.report.words import describe
from jaxnas.storage.files import write_whole
from jaxnas.storage.inputs import read_json
from jaxnas.storage.jsonl import Json
from search.pareto.exact_front import exact_front


def page_of(result: Json) -> str:
    """The page.

    Args:
      result: as `digits.py` writes it.
    """
    rows: list[Json] = result["candidates"]
    configs = [ArchitectureConfig(**row["config"]) for row in rows]
    errors = [(1 - row["accuracy"], row["parameters"]) for row in rows]
    best = set(exact_front(np.asarray(errors)).tolist())
    kinds = ["front" if place in best else "behind" for place in range(len(rows))]
    kinds[result["winner"]] = "winner"
    legend = family_legend(config.arch_type for config in configs)
    charts = _front(rows, configs, kinds), _history(rows, configs, kinds)
    tested = result["tested"]
    quality = [
        [text(name), f"{row['parameters']:,}", f"{row['test']:.4f}"]
        for name, row in tested.items()
    ]
    lead = tiles_of(
        [
            ("digits told right", f"{tested['winner']['test']:.2%}", "on test, once"),
            ("parameters", f"{tested['winner']['parameters']:,}", "of the winner"),
            (
                "models",
                f"{len(rows):,}",
                f"trained in {result['seconds'] / 60:.0f} min",
            ),
        ]
    )
    winner = describe(configs[result["winner"]])
    sections = {
        "test": (
            "Test",
            table(
                ("model", "parameters", "accuracy"),
                quality,
                numbers=2,
                classes=["mark", *[None] * (len(quality) - 1)],
            )
            + tag("p", text(f"The winner on validation is {winner}.")),
        ),
        "front": ("Front", legend + tag("div", *charts, class_="grid2")),
        "candidates": ("Candidates", _candidates(rows, configs, kinds)),
    }
    families = len({config.arch_type for config in configs})
    line = f"{len(rows):,} models of {families} families read digits row by row"
    return document("Digits", line, lead, sections, _data(rows, configs))


def _front(
    rows: Sequence[Json], configs: Sequence[ArchitectureConfig], kinds: Sequence[str]
) -> str:
    xs, ys = plot_scales()
    accuracies = [row["accuracy"] for row in rows]
    x = scale_over([row["parameters"] for row in rows], *xs, log=True)
    y = scale_over(accuracies, *ys)
    places = [(float(row["parameters"]), row["accuracy"]) for row in rows]
    chart = _picture("accuracy on validation", "parameters", x, y)
    said = "Filled points are on the Pareto front; the ring is the winner."
    return captioned(chart("", _dots(rows, configs, kinds, places, x, y)), said)


def _history(
    rows: Sequence[Json], configs: Sequence[ArchitectureConfig], kinds: Sequence[str]
) -> str:
    xs, ys = plot_scales()
    accuracies = [row["accuracy"] for row in rows]
    x = scale_over([1, max(2, len(rows))], *xs, log=False)
    y = scale_over(accuracies, *ys)
    places = [(float(n), value) for n, value in enumerate(accuracies, 1)]
    so_far = np.maximum.accumulate(accuracies)
    line = staircase([(x.at(n), y.at(v)) for n, v in enumerate(so_far, 1)])
    chart = _picture("accuracy on validation", "model, as they were trained", x, y)
    shown = _dots(rows, configs, kinds, places, x, y)
    return captioned(
        chart(tag("path", class_="line", d=line), shown), "The line is the best so far."
    )


def _picture(up: str, across: str, x: Scale, y: Scale):
    def drawn(*inside: str) -> str:
        return picture(
            f"{up} against {across}",
            axes(x, y, across, up),
            *inside,
            class_="chart points",
            tabindex="0",
        )

    return drawn


def _dots(
    rows: Sequence[Json],
    configs: Sequence[ArchitectureConfig],
    kinds: Sequence[str],
    places: Sequence[tuple[float, float]],
    x: Scale,
    y: Scale,
) -> str:
    return dots(
        (
            Dot(row["id"], config.arch_type, *place, kind)
            for row, config, kind, place in zip(
                rows, configs, kinds, places, strict=True
            )
        ),
        x,
        y,
    )


def _candidates(
    rows: Sequence[Json], configs: Sequence[ArchitectureConfig], kinds: Sequence[str]
) -> str:
    order = sorted(
        range(len(rows)),
        key=lambda place: (-rows[place]["accuracy"], rows[place]["parameters"]),
    )
    cells = [
        [
            tag(
                "a",
                f"#{rows[place]['id']}",
                href=f"#c{rows[place]['id']}",
                data_open=rows[place]["id"],
            ),
            text(describe(configs[place])),
            str(rows[place]["generation"]),
            f"{rows[place]['parameters']:,}",
            f"{rows[place]['accuracy']:.4f}",
        ]
        for place in order
    ]
    header = ("id", "model", "generation", "parameters", "accuracy")
    return tag("p", "A column's name sorts by it.") + table(
        header,
        cells,
        numbers=3,
        identity="all",
        classes=[kinds[place] for place in order],
    )


def _data(rows: Sequence[Json], configs: Sequence[ArchitectureConfig]) -> Json:
    every = [config.to_dict() for config in configs]
    shared = shared_among(every)
    candidates = {
        str(row["id"]): {
            "words": describe(config),
            "figures": f"accuracy {row['accuracy']:.4f} on validation, "
            f"{row['parameters']:,} parameters, generation {row['generation']}",
            "family": FAMILIES.index(config.arch_type),
            "config": {k: v for k, v in fields.items() if k not in shared},
            "choices": [],
        }
        for row, config, fields in zip(rows, configs, every, strict=True)
    }
    return {"shared": shared, "genes": [], "candidates": candidates}


def main() -> None:
    """Reads what was found, writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("result", type=Path, help="as digits.py --out writes it")
    parser.add_argument("page", type=file_to_write, help="the HTML file")
    given = parser.parse_args()
    try:
        page = page_of(read_json(given.result))
    except (UsageError, KeyError, TypeError, ValueError) as error:
        parser.error(f"{given.result}: {reason_of(error)}")
    write_whole(given.page, page)


if __name__ == "__main__":
    main()
