"""What a step takes in each form of a program, with one worker and with two.

python experiments/speed/forms.py [--small]
"""

import argparse

import jax
from measured import measure, synthetic_task

from arch import ArchitectureConfig
from arch.padding import common_shape
from jaxnas.population.program import EXACT_FORMS, FORMS, Program
from jaxnas.report.tables import add_numbers, plain_console, plain_table

SIZES = ((4, 96), (6, 256), (6, 512))  # layers, width
SMALL = ((2, 32),)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a tiny model")
    given = parser.parse_args()
    task = synthetic_task(window=64, batch=4, vocabulary=1024)
    table = plain_table("Transformers, batches of 4 x 64 tokens", "layers, width, form")
    add_numbers(table, "compile s", "1 worker, ms", "2 workers, ms a member")
    for layers, width in SMALL if given.small else SIZES:
        config = ArchitectureConfig(
            arch_type="transformer",
            num_layers=layers,
            hidden_dim=width,
            num_heads=4,
            ffn_multiplier=4.0,
            normalization="layernorm",
            activation="gelu",
            position_encoding="absolute",
            attention_dropout=0.1,
            residual_dropout=0.1,
            vocab_size=1024,
            max_seq_length=64,
        )
        for form in FORMS:
            shape = config if form in EXACT_FORMS else common_shape([config])
            program = Program(shape=shape, form=form)
            one, two = (
                measure(program, task, jax.devices()[0], workers) for workers in (1, 2)
            )
            table.add_row(
                f"{layers}, {width}, {form}",
                f"{one.compile:.1f}",
                f"{one.step * 1e3:.1f}",
                f"{two.step / 2 * 1e3:.1f}",
            )
    plain_console().print(table)


if __name__ == "__main__":
    main()
