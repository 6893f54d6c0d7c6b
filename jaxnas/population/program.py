"""A program: what XLA compiles once, and trains and scores all that fit into it."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from arch import ArchitectureConfig, LanguageModel, build_model
from arch.padding import Shape, holds, parameter_shapes
from jaxnas.runtime import compiler_options
from jaxnas.storage.jsonl import Json
from jaxnas.training.loop import Schedule, training_functions
from jaxnas.training.members import Member, member_training, traits_array
from jaxnas.training.scoring import AS_IT_IS, SCORE_BATCH, Compression, scoring
from jaxnas.training.task import Task

EXACT_FORMS = ("exact", "exact_loop")
FORMS = (*EXACT_FORMS, "looped", "unrolled")
Tree = TypeVar("Tree")  # of arrays


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """A shape, and how it is compiled.

    Attributes:
      shape: holds every member; of the exact forms it is the only one.
      form: "exact" and "exact_loop" have all traits compiled in; in "looped" and
        "unrolled" they are data. In "exact" and "unrolled" layers are compiled one
        by one (a deep stack of "exact" is not), in the others they are a loop.
      lanes: members of one call.
      vmapped: whether they run at once, see `member_training`.
    """

    shape: ArchitectureConfig | Shape
    form: str = "exact"
    lanes: int = 1
    vmapped: bool = False

    def __post_init__(self) -> None:
        if self.form not in FORMS or self.lanes < 1:
            raise ValueError(f"form={self.form!r} must be one of {FORMS}, lanes >= 1")

    @property
    def elastic(self) -> bool:
        """True if it takes members of different traits and sizes."""
        return self.form not in EXACT_FORMS

    @property
    def quick(self) -> bool:
        """Whether it compiles quickly, for it is chosen where trainings are short.

        Steps of Mamba would take half as long again, and those of RWKV a tenth.
        """
        loop = self.form in ("exact_loop", "looped")
        return loop and self.shape.arch_type not in ("mamba", "rwkv")

    def takes(self, config: ArchitectureConfig) -> bool:
        """Whether the config (a `training_config`) can be a member."""
        return holds(self.shape, config) if self.elastic else self.shape == config

    def model(self, dtype: jax.typing.DTypeLike) -> LanguageModel:
        """The module of the shape."""
        unrolled = None if self.form == "exact" else self.form == "unrolled"
        return build_model(self.shape, dtype, unrolled)

    def to_dict(self) -> Json:
        """As JSON types."""
        return dataclasses.asdict(self) | {"shape": self.shape.to_dict()}

    @classmethod
    def from_dict(cls, values: Json) -> "Program":
        """The inverse of `to_dict`."""
        kind = Shape if "members" in values["shape"] else ArchitectureConfig
        return cls(**values | {"shape": kind(**values["shape"])})


class Compiled(NamedTuple):
    """A program made ready for one device."""

    train: jax.stages.Compiled  # see `member_training`
    score: jax.stages.Compiled | None  # see `scoring`; None if nothing is scored
    memory: int  # bytes of the device that the greater of the two takes


def compile_program(
    program: Program,
    task: Task,
    windows: int | None,
    lone: Compression | None,
    device: jax.Device,
) -> Compiled:
    """Compiles ahead of time, for one device.

    Args:
      program: see `Program`.
      task: see `Task`.
      windows: how many score a member; None if nothing is scored.
      lone: the only compression that is asked for, to be compiled in; None if
        there are several. Of no account where the host compresses.
      device: where it will run.
    """
    train = compile_training(program, task, device)
    if windows is None:
        return Compiled(train, None, _bytes(train))
    score = compile_scoring(program, task, windows, lone, device)
    return Compiled(train, score, max(map(_bytes, (train, score))))


def compile_training(
    program: Program, task: Task, device: jax.Device
) -> jax.stages.Compiled:
    """`member_training` of the program; arguments as `compile_program`."""
    model = program.model(task.dtype)
    init = training_functions(model, task.settings).init
    state = jax.eval_shape(init, parameter_shapes(program.shape))
    arguments = (
        _stacked(state, program.lanes),
        jax.eval_shape(lambda: _some_members(program)),
        task.dataset.train,
        _INT32((task.settings.steps_per_call, task.settings.batch)),
        _INT32(()),
    )
    return _compiled(
        member_training(model, task.settings, program.vmapped),
        _on(device, arguments),
        device,
        donated=(0,),
        quick=program.quick,
    )


def compile_scoring(
    program: Program,
    task: Task,
    windows: int,
    lone: Compression | None,
    device: jax.Device,
) -> jax.stages.Compiled:
    """`scoring` of the program; arguments as `compile_program`."""
    arguments = (
        _stacked(parameter_shapes(program.shape), program.lanes),
        jax.eval_shape(lambda: _some_members(program).traits),
        _INT32((-(-windows // SCORE_BATCH), SCORE_BATCH, task.settings.window + 1)),
        _INT32(()),
        task.token_bytes,
        _INT32(()),
        _INT32((program.lanes,)),
    )
    if compressed_on_host(device):
        lone = AS_IT_IS
    # It runs once: a loop of layers, which compiles in half of the time.
    model = build_model(program.shape, jnp.float32, unrolled=False)
    return _compiled(
        scoring(model, lone, program.vmapped),
        _on(device, arguments),
        device,
        quick=True,
    )


def compressed_on_host(device: jax.Device) -> bool:
    """Whether weights are pruned and rounded before they are scored, by NumPy.

    To compile that takes half of a scoring's compilation, and more than it takes
    the host. An accelerator's members are rounded where they are.
    """
    return bool(device.platform == "cpu")


def _compiled(
    function: Callable,
    arguments: tuple,
    device: jax.Device,
    donated: tuple[int, ...] = (),
    quick: bool = False,
) -> jax.stages.Compiled:
    """The function compiled ahead of time; JAX keeps what XLA makes of it.

    Args:
      function: to be jitted.
      arguments: of `jax.ShapeDtypeStruct`, on the device.
      device: where it will run.
      donated: places of the arguments that it may overwrite.
      quick: whether it runs for so short a time that compiling matters more.
    """
    lowered = jax.jit(function, donate_argnums=donated).lower(*arguments)
    return lowered.compile(compiler_options=compiler_options(device.platform, quick))


_INT32 = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.int32)


def _some_members(program: Program) -> Member:
    lanes = program.lanes
    schedule = Schedule(*[jnp.zeros(lanes)] * 4)
    traits = None
    if program.elastic:
        one = traits_array(program.shape)
        traits = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (lanes,)), one)
    return Member(schedule, jax.random.split(jax.random.key(0), lanes), traits)


def _stacked(tree: Tree, lanes: int) -> Tree:
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((lanes, *leaf.shape), leaf.dtype), tree
    )


def _on(device: jax.Device, tree: Tree) -> Tree:
    sharding = jax.sharding.SingleDeviceSharding(device)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
    )


def _bytes(compiled: jax.stages.Compiled) -> int:
    found = compiled.memory_analysis()
    if found is None:  # a backend that does not tell
        return 0
    return (
        found.argument_size_in_bytes
        + found.output_size_in_bytes
        + found.temp_size_in_bytes
        - found.alias_size_in_bytes
    )
