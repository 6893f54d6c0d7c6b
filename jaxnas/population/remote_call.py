"""A call as a worker of a cluster runs it: as a thread of the run's own machine would.

What goes to a worker and comes back is made of values; arrays are NumPy's.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from arch import ArchitectureConfig
from jaxnas.data import Dataset
from jaxnas.population.call import Keys, Outcome, Work, train_call
from jaxnas.population.compiler import Compiler
from jaxnas.population.devices import local_machine
from jaxnas.population.pool import check_memory, failures, too_large
from jaxnas.population.program import Program
from jaxnas.runtime import cores, give_back, processor, set_up
from jaxnas.training.loop import TrainState
from jaxnas.training.scoring import Compression
from jaxnas.training.settings import TrainSettings
from jaxnas.training.single import TrainingFailed
from jaxnas.training.task import Task

# What of JAX's configuration decides numbers; a program may have set it.
DECIDING = (
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_numpy_dtype_promotion",
)


class SharedWork(NamedTuple):
    """What all calls of a plan do: `Work` without data and what is a candidate's."""

    settings: TrainSettings
    seed: int
    dtype: np.dtype
    rest: Mapping[str, Any]  # fields of `Work`
    lone: Compression | None  # see `compile_program`


class Call(NamedTuple):
    """One call, and what `Work` holds for its candidates."""

    program: Program
    keys: Keys
    candidates: Mapping[str, ArchitectureConfig]
    wanted: Mapping[str, Sequence[Compression]]
    begun: Mapping[str, TrainState]


class Ran(NamedTuple):
    """What became of a call.

    Attributes:
      outcomes: of its candidates.
      too_large: why it did not fit into the worker's device; None if it did.
      compile_seconds: until its program was there.
      seconds: of training and scoring.
    """

    outcomes: list[Outcome]
    too_large: str | None
    compile_seconds: float
    seconds: float


class About(NamedTuple):
    """What a worker is.

    Attributes:
      platform: of its device, as JAX calls it.
      device: its kind, see `kind_of`.
      memory: bytes of it that may be used.
      version: of jaxnas.
      jax: its version.
    """

    platform: str
    device: str
    memory: float
    version: str
    jax: str


def shared_work(work: Work, lone: Compression | None) -> SharedWork:
    """What of a work goes to every worker."""
    apart = ("task", "wanted", "begun")
    rest = {
        field.name: getattr(work, field.name)
        for field in dataclasses.fields(work)
        if field.name not in apart
    }
    task = work.task
    return SharedWork(task.settings, task.seed, task.dtype, rest, lone)


def call_of(
    program: Program,
    keys: Keys,
    candidates: Mapping[str, ArchitectureConfig | None],
    work: Work,
) -> Call:
    """A call to send, with the states that its candidates go on from."""
    members = [key for key in keys if key is not None]
    begun = {}
    if work.begin and work.begun is not None:
        begun = {key: work.begun(key) for key in members}
    return Call(
        program,
        keys,
        {key: one for key in members if (one := candidates[key]) is not None},
        {key: work.wanted.get(key, ()) for key in members},
        begun,
    )


def deciding_config() -> dict[str, Any]:
    """The values of `DECIDING` in this process, those that this JAX knows."""
    known = jax.config.values
    return {name: known[name] for name in DECIDING if name in known}


def kind_of(device: jax.Device) -> str:
    """What has to be the same for the same bytes; of a CPU its cores, too."""
    if device.platform != "cpu":
        return device.device_kind
    return f"{processor()} with {cores()} cores"


class Session:
    """What a worker keeps from one call to the next: data and programs."""

    def __init__(self, config: Mapping[str, Any], limit: float | None) -> None:
        """Sets JAX up as it is in the run's own process.

        Args:
          config: of `deciding_config`.
          limit: as for `Machine`.
        """
        for name, value in config.items():
            jax.config.update(name, value)
        set_up()
        self._machine = local_machine(limit)
        self._tasks: dict[tuple, Task] = {}
        self._compilers: dict[tuple, Compiler] = {}

    @property
    def platform(self) -> tuple[str, str, float]:
        """The device's platform, its kind and the bytes that may be used."""
        device = self._machine.devices[0]
        return device.platform, kind_of(device), self._machine.memory

    def run(
        self, dataset: Dataset, shared: SharedWork, call: Call, stopped: Callable
    ) -> Ran:
        """Compiles, trains, scores; whatever goes wrong is in the outcomes.

        Args:
          dataset: the same in all calls.
          shared: see `SharedWork`.
          call: see `Call`.
          stopped: asked after some steps, returns whether to give the call up.
        """
        task = self._task(dataset, shared)
        work = Work(
            task=task,
            wanted=call.wanted,
            begun=call.begun.__getitem__,
            **shared.rest,
        )
        compiler, device = self._compiler(task, work, shared), self._machine.devices[0]

        def on_steps(steps: int, loss: float) -> None:
            if stopped():
                raise TrainingFailed("stopped")

        began = ready = time.monotonic()
        reason = None
        try:
            compiled = compiler.ask(call.program, device).result()
            ready = time.monotonic()
            check_memory(compiled, self._machine.memory)
            outcomes = train_call(
                call.program,
                call.keys,
                call.candidates,
                work,
                compiled,
                device,
                on_steps,
            )
        except Exception as error:  # any: a candidate's failure is its result
            compiler.forget(call.program, device)
            reason = too_large(error)
            outcomes = failures(call.program, call.keys, error)
        give_back()
        seconds = time.monotonic() - began
        outcomes = [
            dataclasses.replace(one, seconds=seconds, error=_portable(one.error))
            for one in outcomes
        ]
        return Ran(outcomes, reason, ready - began, time.monotonic() - ready)

    def _task(self, dataset: Dataset, shared: SharedWork) -> Task:
        key = shared.settings, shared.seed, shared.dtype
        if key not in self._tasks:
            settings, seed, dtype = key
            self._tasks[key] = Task(
                dataset=dataset, settings=settings, seed=seed, dtype=dtype
            )
        return self._tasks[key]

    def _compiler(self, task: Task, work: Work, shared: SharedWork) -> Compiler:
        windows = len(work.windows)
        key = shared.settings, shared.dtype, windows, shared.lone
        if key not in self._compilers:
            self._compilers[key] = Compiler(task, windows, shared.lone, cores=1)
        return self._compilers[key]


def _portable(error: Exception | None) -> Exception | None:
    """An error of the same name and text, that can be made again elsewhere."""
    if error is None or type(error).__module__.split(".")[0] in ("builtins", "jaxnas"):
        return error
    return type(type(error).__name__, (Exception,), {})(str(error))
