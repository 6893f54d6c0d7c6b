"""`space NAME`: what a search space holds."""

from rich.table import Table

from arch.space import Space
from jaxnas.commands.options import MANY, Parser, whole
from jaxnas.errors import UsageError
from jaxnas.keys import key_of
from jaxnas.presets import SPACE_NAMES
from jaxnas.report.tables import plain_console, plain_table
from jaxnas.report.words import describe
from jaxnas.spaces import load_space


def main(arguments: list[str]) -> None:
    """Prints genes, counts and samples."""
    parser = Parser(
        prog="python -m jaxnas.run space",
        description="Counts and samples of a search space.",
    )
    parser.add_argument(
        "name", metavar="NAME", help=f"{', '.join(SPACE_NAMES)}, or FILE.toml"
    )
    parser.add_argument(
        "--samples", type=whole(MANY), default=5, metavar="N", help="[5]"
    )
    parser.add_argument("--seed", type=whole(), default=0, metavar="N", help="[0]")
    options = parser.parse_args(arguments)
    if options.samples < 0 or not 0 <= options.seed < 2**32:
        raise UsageError("--samples must be at least 0, --seed in 0 to 2**32 - 1")
    space, console = load_space(options.name), plain_console()
    console.print(_genes(space))
    for count, meaning in (
        (space.total, "genomes in total"),
        (space.valid_count, "valid: their config exists"),
        (space.distinct_count, "distinct: no two mean the same model"),
    ):
        console.print(f"{count:>12,}  {meaning}")
    if options.samples:
        console.print(f"\nsamples, seed {options.seed}:")
        key = key_of(options.seed, "samples")
        for genome in space.sample(key, options.samples):
            config = space.decode(genome)
            console.print(f"  {describe(config)}", soft_wrap=True)


def _genes(space: Space) -> Table:
    table = plain_table(f"space {space.name}", "gene", "choices")
    for gene in space.genes:
        table.add_row(gene, ", ".join(map(str, space.values(gene))))
    return table
