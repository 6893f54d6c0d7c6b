"""Milliseconds of an editor's request, on one core: 512 tokens before, 128 behind.

    python experiments/speed/serving.py [--engine NAME] [--repeats N]

A transformer with random weights (54 MiB in fp16 unless said otherwise) completes
16 tokens of a text that it has not seen, of the last one with a word typed at the
cursor, and of the same text again. Interleaved; medians.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import jax

from arch import ArchitectureConfig, build_model
from arch.cost import size_mib
from arch.initial import draw_parameters
from jaxnas.data import read_source
from jaxnas.data.fim import with_fim
from jaxnas.data.tokenizer import train_tokenizer
from jaxnas.export.model_folder import save_model
from jaxnas.report.tables import add_numbers, plain_console, plain_table
from jaxnas.runtime import set_up
from jaxnas.serving.completer import Completer
from jaxnas.serving.engines import ENGINES
from jaxnas.serving.protocol import infill_request

BEFORE, BEHIND, DRAWN = 512, 128, 16  # tokens
CONTEXT = 768  # tokens, at most
VOCABULARY = 8192


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=448)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--engine", choices=ENGINES, default="float32")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    set_up()
    texts = [file.text for file in read_source("stdlib").files[:120]]
    tokenizer = with_fim(train_tokenizer(texts, VOCABULARY))
    config = ArchitectureConfig(
        arch_type="transformer",
        num_layers=options.layers,
        hidden_dim=options.hidden,
        num_heads=options.hidden // 64,
        ffn_multiplier=3.0,
        normalization="rmsnorm",
        activation="swiglu",
        position_encoding="rope",
        vocab_size=tokenizer.get_vocab_size(),
        max_seq_length=2048,
    )
    with tempfile.TemporaryDirectory() as folder:
        params = draw_parameters(build_model(config), jax.random.key(0))
        save_model(Path(folder), config, params, tokenizer)
        completer = Completer(Path(folder), CONTEXT, options.engine)
    times: dict[str, list[float]] = {"another text": [], "a word more": [], "again": []}
    read = dict.fromkeys(times, 0)
    pieces = [tokenizer.encode(text).ids for text in texts]
    pieces = [ids for ids in pieces if len(ids) > BEFORE + BEHIND]
    for at in range(options.repeats + 1):  # the first one compiles
        ids = pieces[at]
        before = tokenizer.decode(ids[:BEFORE])
        behind = tokenizer.decode(ids[BEFORE : BEFORE + BEHIND])
        asked = (before, before + " value", before + " value")
        for name, text in zip(times, asked, strict=True):
            seconds, read[name] = clocked(completer, text, behind)
            if at:
                times[name].append(1e3 * seconds)
    table = plain_table("An editor's request", "text")
    add_numbers(table, "tokens", "median ms", "least ms")
    for name, taken in times.items():
        row = (read[name], statistics.median(taken), min(taken))
        table.add_row(name, *(f"{value:.0f}" for value in row))
    console = plain_console()
    console.print(
        f"L{config.num_layers} H{config.hidden_dim}, {size_mib(config):.0f} MiB in "
        f"fp16, {completer.engine}; {DRAWN} tokens drawn; jax {jax.__version__}"
    )
    console.print(table)


def clocked(completer: Completer, before: str, behind: str) -> tuple[float, int]:
    """Seconds of a completion, and the tokens of its prompt."""
    asked = {"input_prefix": before, "input_suffix": behind, "n_predict": DRAWN}
    begin = time.perf_counter()
    for _ in completer.complete(infill_request(asked), time.monotonic() + 60):
        pass
    return time.perf_counter() - begin, completer.counts.prompt


if __name__ == "__main__":
    main()
