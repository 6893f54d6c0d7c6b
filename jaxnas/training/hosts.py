"""One training on the devices of several hosts: the first leads, the others follow.

The first host alone reads, decides and writes. Before each call of the training's
program it tells the others what the call takes, and all make it together, each with
its part of the batch. Whatever a clock or a file says there, no host can wait for a
call that another one does not make.
"""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import broadcast_one_to_all, process_allgather

from arch import ArchitectureConfig
from arch.padding import parameter_shapes
from jaxnas.errors import RunFailed, UsageError, lacks_memory, one_line
from jaxnas.training.devices import SharedDevices, Training
from jaxnas.training.loop import Schedule, TrainState, fresh_state
from jaxnas.training.settings import TrainSettings
from jaxnas.training.single import trainer_of
from jaxnas.version import __version__

Tree = TypeVar("Tree")  # of arrays
Message = dict[str, Any]

JOINING = 300  # seconds in which all hosts must have begun
_MESSAGE = 8192  # bytes: of one size, so that one program sends them all


def join(address: str | None, number: int | None, index: int | None) -> None:
    """Connects this process with those of the other hosts.

    To be called before anything else of JAX.

    Args:
      address: HOST:PORT of the first; None for what SLURM, Open MPI or Kubernetes
        say.
      number: of hosts.
      index: of this one, from 0.

    Raises:
      UsageError: they do not come together, or differ.
    """
    jax.config.update("jax_enable_preemption_service", False)  # it takes SIGTERM
    try:
        jax.distributed.initialize(
            address, number, index, initialization_timeout=JOINING
        )
    except (RuntimeError, ValueError) as error:
        where = "auto" if address is None else address
        raise UsageError(f"--hosts {where}: {_first_line(error)}") from None
    if jax.process_count() * jax.local_device_count() != jax.device_count():
        raise UsageError("--hosts: all must have the same number of devices")
    device = jax.local_devices()[0]
    facts = f"{__version__} {jax.__version__} {device.platform}".encode()
    said = np.frombuffer(hashlib.sha256(facts).digest(), np.uint8)
    if len(np.unique(process_allgather(said), axis=0)) > 1:
        raise UsageError(
            f"--hosts: all must have the same jaxnas, jax and platform; this one has "
            f"jaxnas {__version__}, jax {jax.__version__}, {device.platform}"
        )


def leads() -> bool:
    """Whether this is the first host."""
    return jax.process_index() == 0


class Hosts(SharedDevices):
    """The devices of all hosts, as the first one has them."""

    def __init__(self) -> None:
        """After `join`."""
        super().__init__(jax.devices())
        self.hosts = jax.process_count()

    def on_all(self, tree: Tree) -> Tree:
        """The training split, for all calls to come."""
        found = jax.tree.map(np.asarray, tree)
        shapes = [[leaf.shape, leaf.dtype.name] for leaf in jax.tree.leaves(found)]
        _tell({"kind": "tokens", "shapes": shapes})
        leaves = self.place(broadcast_one_to_all(jax.tree.leaves(found)))
        return jax.tree.unflatten(jax.tree.structure(tree), leaves)

    def on_one(self, tree: Tree) -> Tree:
        """NumPy arrays."""
        return jax.tree.map(np.asarray, tree)

    def shared_out(self, rows: np.ndarray) -> jax.Array:
        """[S, B] -> the same, each device with a part of the columns."""
        return jax.make_array_from_callback(rows.shape, self._columns, rows.__getitem__)

    def begin(self, training: Training, state: TrainState) -> TrainState:
        """The state goes to all hosts, unless they hold it."""
        held = getattr(state.step, "sharding", None) == self.everywhere
        _tell(
            {
                "kind": "training",
                "config": dataclasses.asdict(training.config),
                "settings": dataclasses.asdict(training.settings),
                "dtype": training.dtype.name,
                "key": np.asarray(jax.random.key_data(training.key)).tolist(),
                "held": held,
            }
        )
        return state if held else self.place(broadcast_one_to_all(self.on_one(state)))

    def call(self, rows: np.ndarray, schedule: Schedule, steps: int) -> None:
        """The others make the call with this one."""
        plain = [float(value) for value in schedule]
        shape = list(rows.shape)
        _tell({"kind": "call", "schedule": plain, "steps": steps, "shape": shape})
        broadcast_one_to_all(np.asarray(rows, np.int32))

    def place(self, tree: Tree) -> Tree:
        """Arrays that all hosts have, on each of their devices."""

        def one(leaf: np.ndarray) -> jax.Array:
            part = leaf.__getitem__
            return jax.make_array_from_callback(leaf.shape, self.everywhere, part)

        return jax.tree.map(one, tree)

    @contextlib.contextmanager
    def leading(self) -> Iterator[None]:
        """Lets the others go when the block ends, and says to them how.

        Raises:
          RunFailed: another host is gone.
        """
        try:
            yield
        except jax.errors.JaxRuntimeError as error:
            if lacks_memory(error):
                raise
            raise RunFailed(
                f"the training lost another host ({_first_line(error)})"
            ) from None
        except BaseException as error:
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                said = one_line(error) or type(error).__name__
                _end(said[: _MESSAGE // 8])
            raise
        else:
            _end(None)


def follow() -> None:
    """Makes the calls of the first host's training with it, until it ends.

    Raises:
      RunFailed: it failed there.
    """
    hosts = Hosts()
    device = jax.local_devices()[0].device_kind
    which = f"host {jax.process_index() + 1} of {hosts.hosts}"
    print(f"{which} follows the first, {jax.local_device_count()} x {device}")
    training: Any = None
    state: Any = None
    tokens: Any = None
    while (said := _told())["kind"] != "end":
        if said["kind"] == "tokens":
            leaves = [np.zeros(shape, dtype) for shape, dtype in said["shapes"]]
            [tokens] = hosts.place(broadcast_one_to_all(leaves))
        elif said["kind"] == "training":
            training = Training(
                ArchitectureConfig(**said["config"]),
                TrainSettings(**said["settings"]),
                np.dtype(said["dtype"]),
                jax.random.wrap_key_data(jnp.array(said["key"], jnp.uint32)),
            )
            if not said["held"]:
                state = hosts.place(broadcast_one_to_all(_like(training)))
        else:
            rows = broadcast_one_to_all(np.zeros(said["shape"], np.int32))
            run = trainer_of(*training[:3], hosts.everywhere).run
            schedule = Schedule(*said["schedule"])
            given = hosts.shared_out(rows), schedule, training.key, said["steps"]
            state, losses = run(state, tokens, *given)
            np.asarray(losses)  # what fails in the call fails here
    jax.distributed.shutdown()  # waits for the others
    if said["failed"] is not None:
        raise RunFailed(f"the first host ended: {said['failed']}")


def _like(training: Training) -> TrainState:
    """A state of the same shapes, NumPy arrays."""
    params = parameter_shapes(training.config)
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), params)
    return fresh_state(params, training.settings)


def _end(failed: str | None) -> None:
    _tell({"kind": "end", "failed": failed})
    jax.distributed.shutdown()  # waits for the others


def _tell(message: Message) -> None:
    text = json.dumps(message).encode()
    assert len(text) <= _MESSAGE, message
    broadcast_one_to_all(np.frombuffer(text.ljust(_MESSAGE), np.uint8))


def _told() -> Message:
    return json.loads(bytes(broadcast_one_to_all(np.zeros(_MESSAGE, np.uint8))))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
