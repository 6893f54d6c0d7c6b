"""`generate MODEL`: text from a trained model, as it is drawn."""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from arch.decoding.generate import Generated, check, position_limit, stream
from arch.decoding.sampling import Sampling
from arch.decoding.unrolled import unstack
from jaxnas.commands.options import MANY, Parser, whole
from jaxnas.data.tokenizer import special_reader
from jaxnas.errors import UsageError
from jaxnas.export.model_folder import LoadedModel, load_model
from jaxnas.keys import key_of
from jaxnas.runtime import compute_dtype, set_up
from jaxnas.serving.pieces import pieces
from jaxnas.storage.run_folder import model_in

PROMPT_BYTES = 2**24
MAX_NEW = 256  # tokens by default, fewer if the model has no room for them

_ABOUT = """\
Goes on with a prompt. MODEL is a folder with a saved model, such as the folder
`model` of a run. The text goes to standard output while it is drawn, without the
prompt; a line with the speed goes to standard error.
"""


def main(arguments: list[str]) -> None:
    """Writes the samples, each ended by a newline."""
    options = _parser().parse_args(arguments)
    sampling, text = _sampling(options), _prompt(options)
    if options.num < 1 or not 0 <= options.seed < 2**32:
        raise UsageError("--num must be at least 1, --seed in 0 to 2**32 - 1")
    if "" in options.stop:
        raise UsageError("--stop must not be empty")
    model = load_model(model_in(options.model))
    prompt = _tokens(model, text, options.special_tokens)
    max_new = _max_new(options.max_new, model, len(prompt))
    try:
        check(model.config, [prompt], max_new)
    except ValueError as error:
        raise UsageError(str(error)) from None
    set_up()
    weights, speed = unstack(model.params), Speed()
    try:
        for number in range(options.num):
            if options.num > 1:
                _write(f"--- sample {number + 1} of {options.num} ---\n")
            parts = stream(
                key_of(options.seed, "generate", number),
                model.config,
                weights,
                [prompt],
                max_new=max_new,
                sampling=sampling,
                stop_tokens=model.ends,
                dtype=compute_dtype(),
            )
            watched = speed.watch(parts)
            for piece in pieces(watched, model.tokenizer, options.stop, prompt):
                _write(piece)
            _write("\n")
    except BrokenPipeError:  # the reader has seen enough, as `head` has
        # What is left in the buffer has nowhere to go when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    print(f"jaxnas: {speed}", file=sys.stderr)


class Speed:
    """Counts tokens and their time; what is compiled on the way is left out."""

    def __init__(self) -> None:
        self.tokens = 0
        self.timed = 0  # tokens of which the time is known
        self.seconds = 0.0

    def watch(self, parts: Iterator[Generated]) -> Iterator[Generated]:
        """Hands on what `stream` gives."""
        drawn, calls, before = 0, 0, time.perf_counter()
        for part in parts:
            now, length = time.perf_counter(), int(part.lengths[0])
            # The first two calls compile: the prompt's program and the loop.
            if calls >= 2:
                self.timed += length - drawn
                self.seconds += now - before
            self.tokens += length - drawn
            drawn, calls = length, calls + 1
            yield part
            before = time.perf_counter()

    def __str__(self) -> str:
        speed = f", {self.timed / self.seconds:.0f} tokens/s" if self.timed else ""
        return f"{self.tokens} tokens{speed}"


def _write(text: str) -> None:
    # UTF-8 in every locale, and on the terminal at once.
    sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()


def _tokens(model: LoadedModel, text: str, special: bool) -> list[int]:
    """The prompt's tokens. An empty one begins a new file: behind an end of text."""
    tokenizer = model.tokenizer
    ids = special_reader(tokenizer)(text) if special else tokenizer.encode(text).ids
    return ids or [model.first_token()]


def _max_new(wanted: int | None, model: LoadedModel, prompt: int) -> int:
    if wanted is not None:
        return wanted
    limit = position_limit(model.config)
    # At least 1, so that a prompt that leaves no room is reported as too long.
    return MAX_NEW if limit is None else max(1, min(MAX_NEW, limit - prompt))


def _prompt(options: argparse.Namespace) -> str:
    path = options.prompt_file
    try:
        if options.prompt is not None:
            path = "--prompt"
            # What the shell gave that is no UTF-8 comes as surrogates.
            return options.prompt.encode().decode()
        with sys.stdin.buffer if path == "-" else open(path, "rb") as file:
            raw = file.read(PROMPT_BYTES + 1)  # of a pipe, too
        if len(raw) > PROMPT_BYTES:
            raise UsageError(f"{path} holds more than {PROMPT_BYTES:,} bytes")
        return raw.decode()
    except UsageError:
        raise
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UsageError(f"cannot read {path}: {reason}") from None


def _sampling(options: argparse.Namespace) -> Sampling:
    try:
        return Sampling(
            temperature=0.0 if options.greedy else options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            min_p=options.min_p,
            repetition_penalty=options.repetition_penalty,
        )
    except ValueError as error:
        raise UsageError(str(error)) from None


def _parser() -> Parser:
    parser = Parser(
        prog="python -m jaxnas.run generate",
        usage="python -m jaxnas.run generate MODEL --prompt TEXT [settings]",
        description=_ABOUT,
    )
    add = parser.add_argument
    add("model", metavar="MODEL", type=Path, help="the folder of a model, or of a run")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--prompt", metavar="TEXT", help="empty begins a new file")
    source.add_argument("--prompt-file", metavar="FILE", help="- is standard input")
    add(
        "--special-tokens",
        action="store_true",
        help="special tokens that the prompt spells out are those, and no text",
    )
    add("--max-new", type=whole(MANY), metavar="N", help=f"tokens, at most [{MAX_NEW}]")
    _add_sampling(parser)
    add(
        "--stop",
        nargs="+",
        action="extend",
        default=[],
        metavar="TEXT",
        help="end before any of these; an end-of-text token always ends",
    )
    add("--num", type=whole(MANY), default=1, metavar="N", help="samples, in turn [1]")
    add("--seed", type=whole(), default=0, metavar="N", help="[0]")
    return parser


def _add_sampling(parser: Parser) -> None:
    """Flags that say how a token is drawn."""
    add = parser.add_argument
    chance = parser.add_mutually_exclusive_group()
    chance.add_argument(
        "--temperature",
        type=float,
        default=0.8,
        metavar="X",
        help="below 1 prefers likely tokens, 0 is --greedy [0.8]",
    )
    chance.add_argument(
        "--greedy", action="store_true", help="the likeliest token, each time"
    )
    add(
        "--top-k",
        type=whole(),
        default=0,
        metavar="N",
        help="keep N tokens; 0: all [0]",
    )
    add("--top-p", type=float, default=0.95, metavar="X", help="keep a share [0.95]")
    add(
        "--min-p",
        type=float,
        default=0.0,
        metavar="X",
        help="keep tokens of at least X times the likeliest one's probability [0]",
    )
    add(
        "--repetition-penalty",
        type=float,
        default=1.0,
        metavar="X",
        help="above 1 avoids tokens of the prompt and the text so far [1]",
    )
