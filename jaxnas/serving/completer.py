"""Completions of one model, one at a time, compiled before they are asked for."""

import contextlib
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from arch.decoding.generate import (
    Generated,
    bucket,
    go_on,
    position_limit,
    settings_of,
    so_far,
    stream,
)
from arch.decoding.loop import begin
from arch.decoding.sampling import GREEDY, Sampling
from arch.decoding.unrolled import unstack
from jaxnas.data.fim import around, fim_ids
from jaxnas.data.tokenizer import inner_tokens, special_reader
from jaxnas.errors import UsageError
from jaxnas.export.model_folder import LoadedModel, load_model
from jaxnas.keys import key_of
from jaxnas.runtime import compute_dtype
from jaxnas.serving.integers import IntegerModel, missing
from jaxnas.serving.pieces import pieces
from jaxnas.serving.protocol import STOP_LENGTH, Request
from jaxnas.serving.reader import PIECE, Reader

ROOM = 64  # tokens that are compiled for ahead
BLOCK = 8  # tokens that are drawn at once
MOST = 4096  # that are drawn, where no position limits them: a cache has room for all
LEAST_LINE = 4  # characters of a line behind the cursor, for it to end a completion


class Completed(NamedTuple):
    """Of one completion: tokens read and drawn, and why it ended, length | stop."""

    prompt: int
    drawn: int
    reason: str


class Completer:
    """Completes texts with a saved model, one at a time."""

    def __init__(
        self,
        folder: Path,
        context: int,
        engine: str = "float32",
        special: bool = False,
    ) -> None:
        """Loads a model.

        Args:
          folder: of the model.
          context: tokens of a prompt, at most, with what it has from behind the
            cursor; the model's positions may allow fewer.
          engine: see `jaxnas.serving.engines`.
          special: whether special tokens that a prompt spells out are those; what is
            filled in is text in any case.

        Raises:
          UsageError: there is no model, it reads no prompt, or the engine does not
            take it.
        """
        loaded = load_model(folder)
        self._config, self.tokenizer = loaded.config, loaded.tokenizer
        reason = missing(self._config) if engine != "float32" else None
        if engine == "int8" and reason is not None:
            raise UsageError(f"--engine int8 cannot serve {folder}: {reason}")
        self.engine = "float32" if reason or engine == "float32" else "int8"
        self._ends = loaded.ends
        self._first = _first_token(loaded)
        self._fim = fim_ids(self.tokenizer)
        self._text = lambda text: self.tokenizer.encode(text).ids
        self._prompted = special_reader(self.tokenizer) if special else self._text
        self.limit = position_limit(self._config)
        self.context = context
        if self.limit is not None:
            if self.limit < 2:
                raise UsageError(f"{folder} reads {self.limit} token: no prompt")
            self.context = min(context, self.limit - self.limit // 2)
        self.counts = Completed(0, 0, "length")
        if self.engine == "int8":
            self._integers = IntegerModel(folder, loaded)
        else:
            self._weights = unstack(loaded.params)
        self._reader = self._new_reader()

    def complete(self, request: Request, until: float) -> Generator[str, None, None]:
        """The text, piece by piece; `counts` are set when it has ended.

        Whoever does not take all of it must close it before another begins: both
        go on from what the model has read.

        Args:
          request: see `Request`.
          until: by `time.monotonic`, when it ends whatever is drawn by then.
        """
        if request.seconds is not None:
            until = min(until, time.monotonic() + request.seconds)
        prompt, most = self._prompt(request)
        if most < 1:
            self.counts = Completed(len(prompt), 0, "length")
            return
        filling = bool(request.after) and self._fim is not None
        # What is before the middle token is no text to go on with.
        read = [] if filling else prompt
        last: list[Generated] = []

        def watched(parts: Iterator[Generated]) -> Iterator[Generated]:
            for part in parts:
                last[:] = [part]
                yield part
                if time.monotonic() > until:
                    return

        about = prompt, most, request.sampling, request.seed
        size = 0
        with contextlib.closing(self._drawn(self._reader, *about)) as parts:
            line = line_behind(request.after)
            text = pieces(watched(parts), self.tokenizer, request.stops, read, line)
            for piece in text:
                size += len(piece)
                yield piece
        drawn = last[0].tokens[0, : last[0].lengths[0]].tolist()
        stopped = drawn[-1] in self._ends or size < self._length(read, drawn)
        self.counts = Completed(
            len(prompt), len(drawn), "stop" if stopped else "length"
        )

    def warm(self, stop: threading.Event) -> None:
        """Compiles for prompts of all lengths, the longest first.

        Texts may be completed meanwhile, with what is read of them in another place;
        it stops after a program once told to.
        """
        reader = self._new_reader()
        longest = min(PIECE, self.context)
        sizes = sorted({bucket(n) for n in range(1, longest + 1)}, reverse=True)
        for size in sizes:
            for sampling in (GREEDY, Sampling(temperature=0.8)):
                # None begins as another does, so that all of it is read.
                prompt = [size % self._config.vocab_size] * min(size, longest)
                for _ in self._drawn(reader, prompt, 2, sampling, 0):
                    pass
                if stop.is_set():
                    return

    def _new_reader(self) -> Reader | IntegerModel:
        """One that has read nothing; each is one thread's."""
        if self.engine == "int8":
            return self._integers.another()
        capacity = self.context + ROOM
        return Reader(self._config, self._weights, capacity, compute_dtype())

    def _drawn(
        self,
        reader: Reader | IntegerModel,
        prompt: Sequence[int],
        most: int,
        sampling: Sampling,
        seed: int,
    ) -> Generator[Generated, None, None]:
        """Tokens behind the prompt, at most so many."""
        key = key_of(seed, "serve", 0)
        sampling = _all_on(sampling, self._config.vocab_size)
        if isinstance(reader, IntegerModel):
            yield from reader.drawn(key, prompt, most, sampling, self._ends)
            return
        if most > ROOM:
            yield from stream(
                key,
                self._config,
                self._weights,
                [prompt],
                max_new=most,
                sampling=sampling,
                stop_tokens=self._ends,
                dtype=compute_dtype(),
            )
            return
        settings = settings_of(sampling, self._ends)
        logits, states = reader.read(prompt)
        last = begun = begin(ROOM, settings, key, states, logits)
        about = (self._config, compute_dtype(), self._weights, settings)
        try:
            for last in go_on(*about, begun, most, BLOCK):
                yield so_far(last, most)
        finally:
            drawn = so_far(last, int(last.drawn)).tokens[0].tolist()
            reader.take_back(drawn, last.states)

    def _prompt(self, request: Request) -> tuple[list[int], int]:
        """What the model reads, and how many tokens may follow."""
        ids = (self._text if request.plain else self._prompted)(request.before)
        if request.after and self._fim is not None:
            behind = inner_tokens(self.tokenizer, request.after)
            room = self.context - len(self._fim) - min(len(behind), self.context // 4)
            ids = ids[_left_out(len(ids), room) :]
            ids = around(ids, behind, self._fim, self.context)
        elif not ids:
            ids = [self._first]
        ids = ids[_left_out(len(ids), self.context) :]
        room = MOST if self.limit is None else self.limit - len(ids)
        return ids, min(request.max_new, room)

    def _length(self, prompt: Sequence[int], drawn: Sequence[int]) -> int:
        """Characters of what was drawn."""
        decode = self.tokenizer.decode
        before = len(decode(list(prompt), skip_special_tokens=True))
        return len(decode([*prompt, *drawn], skip_special_tokens=True)) - before


def _left_out(tokens: int, room: int) -> int:
    """Tokens at the start for which there is no room, in steps of a piece.

    So a text that grows begins at the same place for a while, and is not read again.
    """
    step = min(PIECE, max(1, room // 2))
    return -(-max(0, tokens - room) // step) * step


def _all_on(sampling: Sampling, vocabulary: int) -> Sampling:
    """The same, with every setting on: a program serves all that is drawn."""
    if sampling.temperature == 0:
        return GREEDY
    return Sampling(
        temperature=sampling.temperature,
        top_k=sampling.top_k or vocabulary,
        top_p=min(sampling.top_p, 1 - 1e-6),
        min_p=max(sampling.min_p, 1e-9),
    )


def _first_token(model: LoadedModel) -> int:
    """What an empty prompt is read as; any token, if none begins a text."""
    try:
        return model.first_token()
    except UsageError:
        return 0


def line_behind(after: str) -> str:
    """The next line behind the cursor's own that ends a completion.

    Empty if that says nothing, or is too short or too long to be compared.
    """
    _, _, below = after.partition("\n")
    line = next((line.rstrip() for line in below.splitlines() if line.strip()), "")
    long_enough = len(line.strip()) >= LEAST_LINE
    return line if long_enough and len(line) <= STOP_LENGTH else ""
