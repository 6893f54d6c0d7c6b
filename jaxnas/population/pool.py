"""What pools of workers share: what they are asked, what they say, what fails how."""

import dataclasses
import queue
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import NamedTuple, Protocol, TypeAlias

from arch import ArchitectureConfig
from arch.padding import common_shape
from jaxnas.errors import lacks_memory
from jaxnas.population.call import Keys, Outcome
from jaxnas.population.program import Compiled, Program

MIB = 2**20


class Steps(NamedTuple):
    """A call has trained on."""

    number: int
    loss: float


class Split(NamedTuple):
    """A program did not fit; smaller calls took the place of one of its own."""

    program: Program
    smaller: Program
    reason: str
    calls: int


Event: TypeAlias = "Steps | Split | Future[list[Outcome]]"


class PredictedCall(NamedTuple):
    """Seconds of a call as they were predicted, before any correction."""

    compile: float
    call: float


class PlannedCall(NamedTuple):
    """A call of a plan."""

    device: int  # of the plan; workers of a cluster take any
    program: Program
    keys: Keys
    expected: PredictedCall


class CallPool(Protocol):
    """Workers that train calls.

    `events` holds what they say: each call ends with its future, which comes after
    the call's `Steps` and `Split`.
    """

    events: "queue.SimpleQueue[Event]"

    def submit(self, calls: Sequence[PlannedCall]) -> None:
        """Queues calls, in the order in which they begin."""

    def close(self) -> None:
        """Stops each running call at its next steps, and waits for it."""


def call_ended(outcomes: list[Outcome]) -> "Future[list[Outcome]]":
    """A call that has left these; none of one that was not begun."""
    future: Future[list[Outcome]] = Future()
    future.set_result(outcomes)
    return future


def check_memory(compiled: Compiled, memory: float) -> None:
    """Raises a MemoryError if a program takes more bytes than may be used."""
    if compiled.memory > memory:
        raise MemoryError(
            f"it needs {compiled.memory / MIB:.0f} MiB of the device, "
            f"{memory / MIB:.0f} may be used"
        )


def too_large(error: Exception) -> str | None:
    """Why a call does not fit into the device; None for any other error."""
    if not lacks_memory(error):
        return None
    return str(error) if isinstance(error, MemoryError) else "out of memory"


def failures(program: Program, keys: Keys, error: Exception) -> list[Outcome]:
    """Outcomes of a call that an error ended, which is being handled."""
    trace = traceback.format_exc()
    error = error.with_traceback(None)  # which would hold the call's arrays
    return [
        Outcome(key=key, program=program, error=error, trace=trace)
        for key in keys
        if key is not None
    ]


def is_whole(outcomes: list[Outcome]) -> bool:
    """Whether a call took as long as was to be expected."""
    return all(one.error is None and one.stopped is None for one in outcomes)


def smaller_calls(
    program: Program,
    keys: Keys,
    candidates: Mapping[str, ArchitectureConfig | None],
) -> tuple[Program, list[Keys]] | None:
    """What takes the place of a call that does not fit, None if nothing can."""
    if program.lanes > 1:
        lanes = min(program.lanes, 1 << (len(keys) - 1).bit_length()) // 2
        smaller = dataclasses.replace(program, lanes=max(1, lanes))
    elif program.elastic:
        [config] = [candidates[key] for key in keys if key is not None]
        assert config is not None
        own = dataclasses.replace(program, shape=common_shape([config]))
        smaller = own if own != program else Program(shape=config)
    else:
        return None
    size = smaller.lanes
    parts = [keys[at : at + size] for at in range(0, len(keys), size)]
    # Places of those that are done stay, so that a resume runs the same calls.
    return smaller, [part for part in parts if any(key is not None for key in part)]


def split_call(
    pool: CallPool,
    call: PlannedCall,
    candidates: Mapping[str, ArchitectureConfig | None],
    reason: str,
) -> bool:
    """Has the pool run smaller calls for one that does not fit; False if none can."""
    found = smaller_calls(call.program, call.keys, candidates)
    if found is None:
        return False
    smaller, parts = found
    pool.events.put(Split(call.program, smaller, reason, len(parts)))
    share = PredictedCall(0.0, call.expected.call / len(parts))
    pool.submit([PlannedCall(call.device, smaller, part, share) for part in parts])
    return True
