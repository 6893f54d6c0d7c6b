"""Completions of one model, one at a time, compiled before they are asked for."""

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from arch.decoding.generate import Generated, bucket, position_limit, stream
from arch.decoding.sampling import GREEDY, Sampling
from arch.decoding.unrolled import unstack
from jaxnas.data.fim import around, fim_ids
from jaxnas.data.tokenizer import END_OF_TEXT
from jaxnas.errors import UsageError
from jaxnas.export.model_folder import load_model
from jaxnas.export.tokens import end_tokens
from jaxnas.keys import key_of
from jaxnas.runtime import compute_dtype
from jaxnas.serving.pieces import pieces
from jaxnas.serving.protocol import Request

ROOM = 64  # tokens that are compiled for ahead
LEAST_STOP = 4  # characters of a line behind the cursor, for it to end a completion


class Completed(NamedTuple):
    """Of one completion: tokens read and drawn, and why it ended, length | stop."""

    prompt: int
    drawn: int
    reason: str


class Completer:
    """Completes texts with a saved model, one at a time."""

    def __init__(self, folder: Path, context: int) -> None:
        """Loads a model.

        Args:
          folder: of the model.
          context: tokens before the cursor that are read, at most; the model's
            positions may allow fewer.

        Raises:
          UsageError: there is no model, or it reads no prompt.
        """
        self._config, params, self.tokenizer = load_model(folder)
        self._weights = unstack(params)
        self._ends = end_tokens(folder, self.tokenizer)
        self._first = self.tokenizer.token_to_id(END_OF_TEXT)
        self._fim = fim_ids(self.tokenizer)
        self.limit = position_limit(self._config)
        self.context = context
        if self.limit is not None:
            if self.limit < 2:
                raise UsageError(f"{folder} reads {self.limit} token: no prompt")
            self.context = min(context, self.limit - self.limit // 2)
        self.counts = Completed(0, 0, "length")

    def complete(self, request: Request, until: float) -> Iterator[str]:
        """The text, piece by piece; `counts` are set when it has ended.

        Args:
          request: see `Request`.
          until: by `time.monotonic`, when it ends whatever is drawn by then.
        """
        if request.seconds is not None:
            until = min(until, time.monotonic() + request.seconds)
        prompt, most = self._prompt(request)
        filling = bool(request.after) and self._fim is not None
        stops = [*request.stops, *_line_behind(request.after)]
        last: list[Generated] = []

        def watched() -> Iterator[Generated]:
            for part in self._drawn(prompt, most, request.sampling, request.seed):
                last[:] = [part]
                yield part
                if time.monotonic() > until:
                    return

        # What is before the middle token is no text to go on with.
        parts = pieces(watched(), self.tokenizer, stops, () if filling else prompt)
        size = 0
        for piece in parts:
            size += len(piece)
            yield piece
        drawn = last[0].tokens[0, : last[0].lengths[0]].tolist()
        read = [] if filling else prompt
        stopped = drawn[-1] in self._ends or size < self._length(read, drawn)
        self.counts = Completed(
            len(prompt), len(drawn), "stop" if stopped else "length"
        )

    def warm(self, stop: threading.Event) -> None:
        """Compiles for prompts of all lengths, the longest first.

        Texts may be completed meanwhile; it stops after a program once told to.
        """
        sizes = sorted({bucket(n) for n in range(1, self.context + 1)}, reverse=True)
        for size in sizes:
            for sampling in (GREEDY, Sampling(temperature=0.8)):
                prompt = [0] * min(size, self.context)
                for _ in self._drawn(prompt, 2, sampling, 0):
                    pass
                if stop.is_set():
                    return

    def _drawn(
        self, prompt: Sequence[int], most: int, sampling: Sampling, seed: int
    ) -> Iterator[Generated]:
        """Tokens behind the prompt, at most so many, in a program for `ROOM`."""
        room = max(most, ROOM)
        if self.limit is not None:
            room = min(room, self.limit - len(prompt))
        for part in stream(
            key_of(seed, "serve", 0),
            self._config,
            self._weights,
            [prompt],
            max_new=room,
            sampling=_all_on(sampling, self._config.vocab_size),
            stop_tokens=self._ends,
            dtype=compute_dtype(),
        ):
            yield Generated(part.tokens[:, :most], part.lengths.clip(max=most))
            if int(part.lengths[0]) >= most:
                return

    def _prompt(self, request: Request) -> tuple[list[int], int]:
        """What the model reads, and how many tokens may follow."""
        ids = self.tokenizer.encode(request.before).ids
        if request.after and self._fim is not None:
            behind = self.tokenizer.encode(request.after).ids
            ids = around(ids, behind, self._fim, self.context)
        elif not ids:
            ids = [0 if self._first is None else self._first]
        ids = ids[-self.context :]
        most = request.max_new
        if self.limit is not None:
            most = min(most, self.limit - len(ids))
        return ids, most

    def _length(self, prompt: Sequence[int], drawn: Sequence[int]) -> int:
        """Characters of what was drawn."""
        decode = self.tokenizer.decode
        before = len(decode(list(prompt), skip_special_tokens=True))
        return len(decode([*prompt, *drawn], skip_special_tokens=True)) - before


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


def _line_behind(after: str) -> list[str]:
    """The next line behind the cursor's own, if it says something."""
    _, _, below = after.partition("\n")
    for line in below.splitlines():
        if line.strip():
            return ["\n" + line.rstrip()] if len(line.strip()) >= LEAST_STOP else []
    return []
