"""One training on the devices of several hosts: the first leads, the others follow.

The first host alone reads, decides and writes. Before each call of the training's
program it tells the others what the call takes, and all make it together, each with
its part of the batch: whatever a clock or a file says to one of them, all do the same.
"""

import contextlib
import dataclasses
import json
import os
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import broadcast_one_to_all

from arch import ArchitectureConfig
from jaxnas.errors import RunFailed, lacks_memory, one_line, reason_of
from jaxnas.training.devices import SharedDevices, TrainingProgram
from jaxnas.training.joining import PARTING, signals_handled
from jaxnas.training.loop import Schedule, TrainState
from jaxnas.training.settings import TrainSettings
from jaxnas.training.single import blank_state, trainer_of

Tree = TypeVar("Tree")  # of arrays
Message = dict[str, Any]

_MESSAGE = 8192  # bytes: of one size, so that one program sends them all


class Hosts(SharedDevices):
    """The devices of all hosts, as the first one has them."""

    def __init__(self) -> None:
        """After `joining.join`."""
        super().__init__(jax.devices())
        self.hosts = jax.process_count()
        self._together = False  # whether the others are in what this one is in

    def on_all(self, tree: Any) -> Any:
        """The training split, an array, for all calls to come."""
        tokens = np.asarray(tree)
        about = {"shape": tokens.shape, "dtype": tokens.dtype.name}
        with self._telling({"kind": "tokens", **about}):
            return self.place(broadcast_one_to_all(tokens))

    def on_one(self, tree: Tree) -> Tree:
        """NumPy arrays."""
        return jax.tree.map(np.asarray, tree)

    def before(self, state: TrainState) -> TrainState:
        """NumPy arrays."""
        return self.on_one(state)

    def shared_out(self, rows: np.ndarray) -> jax.Array:
        """[S, B] -> the same, each device with a part of the columns."""
        return jax.make_array_from_callback(rows.shape, self._columns, rows.__getitem__)

    def begin(self, training: TrainingProgram, state: TrainState) -> TrainState:
        """The state goes to all hosts, unless they hold it."""
        held = getattr(state.step, "sharding", None) == self.everywhere
        about = {
            "kind": "training",
            "config": dataclasses.asdict(training.config),
            "settings": dataclasses.asdict(training.settings),
            "dtype": training.dtype.name,
            "key": np.asarray(jax.random.key_data(training.key)).tolist(),
            "held": held,
        }
        with self._telling(about):
            if held:
                return state
            return self.place(broadcast_one_to_all(self.on_one(state)))

    @contextlib.contextmanager
    def call(self, rows: np.ndarray, schedule: Schedule, steps: int) -> Iterator[None]:
        """The others make the call that is made in the block."""
        about = {
            "kind": "call",
            "schedule": [float(value) for value in schedule],
            "steps": steps,
            "shape": rows.shape,
        }
        with self._telling(about):
            broadcast_one_to_all(np.asarray(rows, np.int32))
            yield

    def place(self, tree: Tree) -> Tree:
        """Arrays that all hosts have, on each of their devices."""

        def one(leaf: np.ndarray) -> jax.Array:
            part = leaf.__getitem__
            return jax.make_array_from_callback(leaf.shape, self.everywhere, part)

        return jax.tree.map(one, tree)

    @contextlib.contextmanager
    def leading(self) -> Iterator[None]:
        """Lets the others go when the block ends, and says to them how.

        What ends it in the middle of something that all do together cannot be said
        to them: then JAX ends them once this process is gone.

        Raises:
          RunFailed: another host is gone.
        """
        try:
            yield
        except BaseException as error:
            if self._together:
                if not isinstance(error, jax.errors.JaxRuntimeError):
                    raise
                if lacks_memory(error):
                    raise
                raise RunFailed(
                    f"the training lost another host ({reason_of(error)}): go on "
                    f"with --resume"
                ) from None
            _end(one_line(error) or type(error).__name__)
            raise
        _end(None)

    @contextlib.contextmanager
    def _telling(self, message: Message) -> Iterator[None]:
        """Around what all do after a message."""
        self._together = True
        _tell(message)
        yield
        self._together = False


def follow() -> None:
    """Makes the calls of the first host's training with it, until it ends.

    Raises:
      RunFailed: it failed there, or here.
    """
    try:
        with signals_handled(_leave_soon):
            failed = _followed(Hosts())
        jax.distributed.shutdown()  # waits for the others
    except jax.errors.JaxRuntimeError as error:
        if lacks_memory(error):
            raise
        raise RunFailed(f"the training is lost ({reason_of(error)})") from None
    if failed is not None:
        raise RunFailed(f"the first host ended: {failed}")


def _followed(hosts: Hosts) -> str | None:
    """All until the end, and why it failed on the first host, if it did."""
    training: Any = None
    state: Any = None
    tokens: Any = None
    while (said := _told())["kind"] != "end":
        if said["kind"] == "tokens":
            like = np.zeros(said["shape"], said["dtype"])
            tokens = hosts.place(broadcast_one_to_all(like))
        elif said["kind"] == "training":
            training = TrainingProgram(
                ArchitectureConfig(**said["config"]),
                TrainSettings(**said["settings"]),
                np.dtype(said["dtype"]),
                jax.random.wrap_key_data(jnp.array(said["key"], jnp.uint32)),
            )
            if not said["held"]:
                state = None  # there may be no room for both
                state = hosts.place(broadcast_one_to_all(blank_state(*training[:2])))
        else:
            rows = broadcast_one_to_all(np.zeros(said["shape"], np.int32))
            run = trainer_of(*training[:3], hosts.everywhere).run
            schedule = Schedule(*said["schedule"])
            given = hosts.shared_out(rows), schedule, training.key, said["steps"]
            state, losses = run(state, tokens, *given)
            np.asarray(losses)  # what fails in the call fails here
    return said["failed"]


def _leave_soon(number: int, frame: FrameType | None) -> None:
    """The first host, which may have had the signal too, has time to end all."""
    del frame
    later = threading.Timer(PARTING, os._exit, (128 + number,))
    later.daemon = True
    later.start()


def _end(failed: str | None) -> None:
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # one that is gone
        _tell({"kind": "end", "failed": failed and failed[: _MESSAGE // 8]})
        jax.distributed.shutdown()  # waits for the others


def _tell(message: Message) -> None:
    text = json.dumps(message, ensure_ascii=False).encode()
    assert len(text) <= _MESSAGE, message
    broadcast_one_to_all(np.frombuffer(text.ljust(_MESSAGE), np.uint8))


def _told() -> Message:
    return json.loads(bytes(broadcast_one_to_all(np.zeros(_MESSAGE, np.uint8))))
