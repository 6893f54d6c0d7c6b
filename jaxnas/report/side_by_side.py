"""Searches side by side: tables for the terminal, and a chart with bands."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from rich.table import Table

from jaxnas.report.page.charts import axes, path_of, picture, plot_scales
from jaxnas.report.page.scales import scale_over
from jaxnas.report.page.tags import label, tag
from jaxnas.report.tables import add_numbers, mebibytes, plain_table
from jaxnas.report.words import describe
from jaxnas.results.comparison import (
    SeedGroup,
    best_so_far,
    bits_by_seed,
    by_seed,
    permutation,
    test_bits,
)
from jaxnas.wording import counted

_COLORS = ("#2f6fb5", "#c07400", "#0b8a72", "#8a4fb0", "#c23b4e", "#4d7d1f")


def runs_table(groups: Sequence[SeedGroup]) -> Table:
    """A row a run: its winner, and how good it is."""
    table = plain_table("Winners", "run", "group")
    add_numbers(table, "seed", "tried")
    table.add_column("winner", overflow="fold")
    add_numbers(table, "MiB", "ms", "accuracy", "test bits/byte")
    for number, group in enumerate(groups, 1):
        for record in group.runs:
            best, bits = record.best, test_bits(record)
            seed, tried = str(record.config.seed), str(len(record.results))
            row = [record.folder.path.name, str(number), seed, tried]
            if best is None:
                table.add_row(*row, "none yet", *["-"] * 4)
                continue
            table.add_row(
                *row,
                describe(best.config),
                mebibytes(best.costs.size_mib),
                f"{best.costs.latency_ms:.2f}",
                f"{best.metrics.accuracy:.4f}",
                "-" if bits is None else f"{bits:.3f}",
            )
    return table


def lines_of(groups: Sequence[SeedGroup]) -> Iterator[str]:
    """Each group over its seeds, and what is chance between each two."""
    values = [[*bits_by_seed(group).values()] for group in groups]
    for number, (group, bits) in enumerate(zip(groups, values, strict=True), 1):
        over = counted(len(group.runs), "run")
        if bits:
            least, most = min(bits), max(bits)
            over += f", test bits/byte {np.mean(bits):.3f}"
            over += f" ({least:.3f} to {most:.3f})" if len(bits) > 1 else ""
        yield f"group {number}     {group.name}: {over}"
        finished = sum(test_bits(record) is not None for record in group.runs)
        if finished > len(bits):
            seeds = counted(len(bits), "seed")
            yield f"            {finished} finished runs of {seeds}: the first counts"
    for (i, one), (j, other) in itertools.combinations(enumerate(values, 1), 2):
        if min(len(one), len(other)) < 2:
            yield f"{i} against {j}  needs two finished seeds of each to tell chance"
            continue
        found = permutation(one, other)
        yield (
            f"{i} against {j}  {found.difference:+.4f} bits/byte; chance is as far "
            f"apart with p = {found.p:.3f} (so few runs cannot have less than "
            f"{found.least:.3f})"
        )


def bands_svg(groups: Sequence[SeedGroup]) -> str:
    """The best accuracy so far, a group a line, from its worst to its best seed."""
    curves = [
        [curve for record in by_seed(group) if len(curve := best_so_far(record))]
        for group in groups
    ]
    lengths = [len(curve) for own in curves for curve in own]
    highs = [float(value) for own in curves for curve in own for value in curve]
    xs, ys = plot_scales()
    x = scale_over([1, max(2, *lengths, 2)], *xs, log=False)
    y = scale_over(highs or [0.0, 1.0], *ys, log=False)
    parts = [axes(x, y, "candidate", "best accuracy so far, validation")]
    for number, own in enumerate(curves, 1):
        if not own:
            continue
        color = _COLORS[(number - 1) % len(_COLORS)]
        shared = min(map(len, own))
        rows = np.asarray([curve[:shared] for curve in own])
        places = [x.at(n) for n in range(1, shared + 1)]
        low, high = ([y.at(v) for v in edge] for edge in (rows.min(0), rows.max(0)))
        there, back = zip(places, high, strict=True), zip(places, low, strict=True)
        band = [*there, *reversed([*back])]
        middle = [y.at(v) for v in rows.mean(0)]
        line = path_of(zip(places, middle, strict=True))
        parts += [
            tag("path", d=path_of(band) + "Z", fill=color, opacity=0.18),
            tag("path", d=line, fill="none", stroke=color, stroke_width=2),
            label(places[-1] - 4, middle[-1] - 6, f"group {number}", fill=color,
                  text_anchor="end"),
        ]  # fmt: skip
    style = (
        "text{font:11px sans-serif}.mid{text-anchor:middle}.end{text-anchor:end}"
        ".grid{stroke:#e9edf1}.axis{stroke:#59636e;fill:none}"
    )
    chart = picture("the best so far of each group", f"<style>{style}</style>", *parts)
    return chart.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1) + "\n"
