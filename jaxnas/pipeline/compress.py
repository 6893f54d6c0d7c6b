"""A trained model made smaller: pruned in steps, trained on between, rounded last."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
from rich.console import Console

from arch import ArchitectureConfig, Params, build_model
from arch.config import QUANTIZATIONS
from arch.cost import MIB, Hardware, latency_ms, size_bytes
from arch.families import has_heads
from jaxnas.compress import round_weights
from jaxnas.compress.calibrate import Codes, round_calibrated
from jaxnas.compress.gates import (
    cut_config,
    cuts,
    gated,
    open_gates,
    taylor_importance,
    without,
)
from jaxnas.compress.straight import trained_codes
from jaxnas.compress.weighted import by_importance, gptq
from jaxnas.data import prepare
from jaxnas.errors import RunFailed, UsageError
from jaxnas.export.model_folder import (
    load_model,
    read_arrays,
    save_model,
    write_arrays,
)
from jaxnas.export.tokens import keep_tokens
from jaxnas.hardware import hardware_named
from jaxnas.pipeline.corpus_task import check_positions, keep_facts, shared_task
from jaxnas.pipeline.winner import HELD_OUT, last_course
from jaxnas.report.steps import steps_shown
from jaxnas.report.tables import add_numbers, plain_table
from jaxnas.report.tracking import Tracker
from jaxnas.runtime import set_up
from jaxnas.storage import disk
from jaxnas.storage.files import write_json
from jaxnas.storage.run_folder import RunFolder
from jaxnas.training.loop import logits_of, next_token_losses
from jaxnas.training.scoring import score_stored
from jaxnas.training.settings import TrainSettings
from jaxnas.training.single import (
    TrainingFailed,
    continue_training,
    starting_state,
)
from jaxnas.training.task import Task

STAGES = 3  # of pruning, with a recovery after each
LAST_SHARE = 0.5  # of the recovery's steps, that come after all is pruned
ROUNDED_SHARE = 0.25  # of a recovery's steps, the last ones, with `qat`
CALIBRATION = 64  # windows of the training split
CALIBRATION_TOKENS = 256  # of each, at most

Report = Callable[[int, int, float], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompressPlan:
    """What `compress` was asked for.

    Attributes:
      model: folder of the model.
      data: source of the corpus, for calibration, recovery and scores.
      prune: share of the model's bytes that goes.
      quantization: how the result is stored, of QUANTIZATIONS.
      rounding: plain, importance, gptq or qat.
      recover_steps: of training, in all.
      max_size: MiB of the result at most, None for any.
      max_latency: ms at most, None for any.
      window: tokens a sample.
      batch: samples a step.
      learning_rate: the peak while it recovers.
      final_windows: of each held-out split that a step is scored on.
      seed: of the windows.
    """

    model: str
    data: str
    prune: float
    quantization: str
    rounding: str
    recover_steps: int
    max_size: float | None
    max_latency: float | None
    window: int
    batch: int
    learning_rate: float
    final_windows: int
    seed: int


class Compressed(NamedTuple):
    """A model at some step; codes where it is rounded already."""

    config: ArchitectureConfig
    params: Params
    codes: dict[str, Codes] | None = None


class CompressStep(NamedTuple):
    """A row of the closing table."""

    name: str
    bytes: int
    ms: float
    bits_per_byte: dict[str, float]  # by split


def compress(
    folder: RunFolder,
    plan: CompressPlan,
    console: Console,
    tracker: Tracker | None = None,
) -> list[CompressStep]:
    """Prunes, recovers, rounds, saves; prints and returns what each step cost.

    Args:
      folder: locked. What it holds of an earlier call that was stopped is read, and
        the rest done: the result is the same to the bit.
      plan: see `CompressPlan`.
      console: to print to.
      tracker: told what each step leaves, as "compression".

    Raises:
      UsageError: the plan does not fit the model, or cannot be kept.
      RunFailed: the recovery diverged.
    """
    set_up()
    loaded = load_model(plan.model)
    check_positions(loaded.config, plan.window, plan.model)
    dataset = prepare(plan.data, loaded.config.vocab_size, tokenizer=loaded.tokenizer)
    settings = TrainSettings(
        window=plan.window, batch=plan.batch, learning_rate=plan.learning_rate
    )
    task = shared_task(dataset, settings, plan.seed)
    hardware = hardware_named("auto")
    record = _Record(task, plan.final_windows, hardware, console, tracker)
    unrounded = dataclasses.replace(loaded.config, quantization="fp16")
    limits = CompressLimits.of(plan, loaded.config, record.hardware)
    limits.check(unrounded)
    keep_facts(folder, dataset)
    record.add("as it was", Compressed(loaded.config, loaded.params))
    try:
        with steps_shown(console, "recovery") as show:
            whole = Compressed(unrounded, loaded.params)
            keep = _Kept(folder.path / "steps")
            pruned = _pruned(whole, task, plan, limits, record, show, keep)
    except TrainingFailed as error:
        raise RunFailed(f"{error}: a lower --learning-rate may help") from None
    result = rounded(pruned, task, plan.quantization, plan.rounding)
    record.add(f"rounded, {plan.rounding}", result)
    own = (result.config, pruned.params, loaded.tokenizer)
    save_model(folder.model, *own, codes=result.codes)
    keep_tokens(Path(plan.model), folder.model)
    steps = [step._asdict() for step in record.steps]
    write_json(folder.summary, {"config": result.config.to_dict(), "steps": steps})
    keep.remove()
    record.show()
    console.print(f"model       {folder.model}", soft_wrap=True)
    return record.steps


class _Kept(NamedTuple):
    """Models after steps that are done, until all of them are."""

    folder: Path

    def model(self, name: str, make: Callable[[], Compressed]) -> Compressed:
        """The model of this step: read where it was kept, else made and kept.

        Raises:
          UsageError: what was kept cannot be read.
        """
        path = self.folder / f"{name}.safetensors"
        if path.is_file():
            try:
                params, about = read_arrays(path)
                return Compressed(ArchitectureConfig.from_json(about["config"]), params)
            except (safetensors.SafetensorError, KeyError, ValueError) as error:
                raise UsageError(f"cannot read {path}: {error}") from None
        model = make()
        disk.make_folder(self.folder)
        write_arrays(path, model.params, {"config": model.config.to_json()})
        return model

    def remove(self) -> None:
        """Forgets all of them."""
        if self.folder.is_dir():
            disk.remove_folder(self.folder)


class CompressLimits(NamedTuple):
    """What the result has to keep to; bytes and ms are of its own storage."""

    quantization: str
    bytes: float  # at the storage that the model came in
    storage: str  # that one
    size: float  # bytes of the result
    ms: float
    hardware: Hardware

    @classmethod
    def of(
        cls, plan: CompressPlan, config: ArchitectureConfig, hardware: Hardware
    ) -> "CompressLimits":
        """A share of the bytes is one of the model as it came."""
        return cls(
            plan.quantization,
            size_bytes(config) * (1 - plan.prune),
            config.quantization,
            np.inf if plan.max_size is None else plan.max_size * MIB,
            np.inf if plan.max_latency is None else plan.max_latency,
            hardware,
        )

    def excess(self, config: ArchitectureConfig) -> float:
        """The factor by which the worst limit is broken; at most 1: none is."""
        came = dataclasses.replace(config, quantization=self.storage)
        leaves = dataclasses.replace(config, quantization=self.quantization)
        return max(
            size_bytes(came) / self.bytes,
            size_bytes(leaves) / self.size,
            latency_ms(leaves, self.hardware) / self.ms,
        )

    def check(self, config: ArchitectureConfig) -> None:
        """Raises a UsageError for what no pruning reaches."""
        gates = open_gates(config)
        while one := cuts(config, gates, gates):
            left = [self.excess(cut_config(config, cut.gates)) for cut in one]
            gates = one[int(np.argmin(left))].gates
        least = cut_config(config, gates)
        if self.excess(least) > 1:
            leaves = dataclasses.replace(least, quantization=self.quantization)
            gone = 1 - size_bytes(least) / size_bytes(config)
            raise UsageError(
                f"the limits cannot be kept: pruning takes {gone:.2f} of the bytes at "
                f"most, and leaves {size_bytes(leaves) / MIB:.3f} MiB and "
                f"{latency_ms(leaves, self.hardware):.2f} ms at {self.quantization}"
            )


def _pruned(
    model: Compressed,
    task: Task,
    plan: CompressPlan,
    limits: CompressLimits,
    record: "_Record",
    show: Report,
    kept: _Kept,
) -> Compressed:
    """Pruned until the limits hold, trained on after each stage."""
    begin = limits.excess(model.config)
    stages = STAGES if begin > 1 else 1
    qat = plan.quantization if plan.rounding == "qat" else None
    for stage in range(stages):
        last = stage == stages - 1
        if begin > 1:
            # Each takes the same share of what is left.
            excess = begin ** (1 - (stage + 1) / stages)
            prune = functools.partial(prune_once, model, task, limits, excess)
            smaller = kept.model(f"{stage}-pruned", prune)
            if smaller.config != model.config:
                model = smaller
                record.add(f"pruned to {_words(model.config)}", model)
        steps = _share(plan.recover_steps, stage, stages)
        if steps:
            own = task.repeated(stage)
            own_qat = qat if last else None
            train = functools.partial(_recovered, model, own, steps, own_qat, show)
            model = kept.model(f"{stage}-trained", train)
            record.add(f"trained on, {steps} steps", model)
    return model


def _recovered(
    model: Compressed, task: Task, steps: int, qat: str | None, show: Report
) -> Compressed:
    """The model after so many steps, see `trained_on`."""
    params = trained_on(model.config, task, model.params, steps, qat, show)
    return Compressed(model.config, params)


def _share(steps: int, stage: int, stages: int) -> int:
    """Of the steps: half of them follow the last stage."""
    if stages == 1:
        return steps
    early = int(steps * (1 - LAST_SHARE) / (stages - 1))
    return steps - early * (stages - 1) if stage == stages - 1 else early


def prune_once(
    model: Compressed, task: Task, limits: CompressLimits, excess: float
) -> Compressed:
    """Closes gates, the cheapest ones first, until the limits are this near.

    Which channels, heads or layer of a kind are next their importance says; which
    kind, by how much the calibration loss grows for each byte that goes.

    Args:
      model: to begin from.
      task: whose training split calibrates.
      limits: to keep to.
      excess: of them that may be left, see `CompressLimits.excess`.
    """
    config, params = model.config, jax.tree.map(jnp.asarray, model.params)
    windows = jnp.asarray(calibration_windows(task))
    network = build_model(config)

    def loss(params: Params, windows: jax.Array) -> jax.Array:
        logits = logits_of(network, params, windows[:, :-1])
        return next_token_losses(logits, windows[:, 1:]).mean()

    importance = jax.jit(functools.partial(taylor_importance, loss))
    measure = jax.jit(
        lambda params, gates, windows: jax.lax.map(
            lambda window: loss(gated(params, gates), window[None]), windows
        ).mean()
    )
    gates = open_gates(config)
    before = float(measure(params, gates, windows))
    while limits.excess(cut_config(config, gates)) > excess:
        found = cuts(config, gates, importance(params, gates, windows))
        if not found:
            raise UsageError("there is nothing left to prune")
        now = size_bytes(cut_config(config, gates))
        losses = np.array([measure(params, cut.gates, windows) for cut in found])
        left = np.array([size_bytes(cut_config(config, cut.gates)) for cut in found])
        best = int(np.argmin((losses - before) / (now - left)))
        gates, before = found[best].gates, float(losses[best])
    return Compressed(cut_config(config, gates), without(params, gates))


def trained_on(
    config: ArchitectureConfig,
    task: Task,
    params: Params,
    steps: int,
    quantization: str | None = None,
    report: Report = lambda done, total, loss: None,
) -> Params:
    """A model's weights after so many more steps, with a schedule of their own.

    Args:
      config: of the model.
      task: see `Task`.
      params: to begin from.
      steps: how many.
      quantization: what weights are rounded to, straight through, in the last quarter,
        in which the learning rate decays; None: they are not.
      report: told of the steps.

    Raises:
      TrainingFailed: the loss stopped being finite.
    """
    starts, purpose, schedule = last_course(task, steps)
    state = starting_state(config, task, params)
    parts = [(task, steps)]
    if quantization is not None:
        settings = dataclasses.replace(task.settings, rounding=quantization)
        decaying = dataclasses.replace(task, settings=settings)
        parts = [(task, int(steps * (1 - ROUNDED_SHARE))), (decaying, steps)]
    for own, end in parts:
        training = continue_training(
            config, own, state, starts[:end], purpose, schedule
        )
        for state, losses in training:
            report(int(state.step), steps, float(losses[-1]))
    return state.params


def rounded(
    model: Compressed, task: Task, quantization: str, rounding: str
) -> Compressed:
    """The model as it is stored, and read back.

    Args:
      model: not rounded.
      task: whose training split calibrates.
      quantization: of QUANTIZATIONS.
      rounding: plain, importance, gptq or qat, which was trained for.
    """
    config = dataclasses.replace(model.config, quantization=quantization)
    methods = {"importance": by_importance, "gptq": gptq}
    if quantization != "fp16" and rounding == "qat":
        return Compressed(config, *trained_codes(model.params, quantization))
    if quantization == "fp16" or rounding not in methods:
        index = QUANTIZATIONS.index(quantization)
        stored = jax.jit(round_weights, static_argnums=1)(model.params, index)
        return Compressed(config, stored)
    windows = calibration_windows(task)[:, :-1]
    method = methods[rounding]
    return Compressed(
        config,
        *round_calibrated(model.config, model.params, windows, quantization, method),
    )


def calibration_windows(task: Task) -> np.ndarray:
    """i32[N, T+1] of the training split."""
    windows = task.windows("train", CALIBRATION)
    return windows[:, : CALIBRATION_TOKENS + 1]


class _Record:
    """The steps so far, scored on the held-out splits."""

    def __init__(
        self,
        task: Task,
        number: int,
        hardware: Hardware,
        console: Console,
        tracker: Tracker | None,
    ) -> None:
        self.steps: list[CompressStep] = []
        self.hardware = hardware
        self._console, self._task, self._tracker = console, task, tracker
        self._windows = {split: task.windows(split, number) for split in HELD_OUT}

    def add(self, name: str, model: Compressed) -> None:
        """Scores a model as it is."""
        found = {}
        for split, windows in self._windows.items():
            sums = score_stored(model.config, self._task, model.params, windows)
            if (metrics := sums.metrics()) is None:
                raise RunFailed(f"{name}: the loss is not finite")
            found[split] = metrics.bits_per_byte
        step = CompressStep(
            name,
            size_bytes(model.config),
            latency_ms(model.config, self.hardware),
            found,
        )
        if self._tracker is not None:
            bits = {f"bits_per_byte_{split}": x for split, x in found.items()}
            figures = {"size_mib": step.bytes / MIB, "latency_ms": step.ms}
            self._tracker("compression", len(self.steps), figures | bits)
        self.steps.append(step)
        self._console.print(
            f"{name}: {step.bytes / MIB:.3f} MiB, "
            f"{found['validation']:.4f} bits/byte on validation",
            soft_wrap=True,
        )

    def show(self) -> None:
        """The table."""
        title = f"What each step cost (ms: 128 tokens on {self.hardware.name})"
        table = plain_table(title, "step")
        add_numbers(table, "MiB", "ms", *(f"bits/byte {split}" for split in HELD_OUT))
        for step in self.steps:
            bits = (f"{step.bits_per_byte[split]:.4f}" for split in HELD_OUT)
            table.add_row(step.name, f"{step.bytes / MIB:.3f}", f"{step.ms:.3f}", *bits)
        self._console.print(table)


def _words(config: ArchitectureConfig) -> str:
    heads = ""
    if has_heads(config.arch_type):
        heads = f", {config.num_heads} heads"
        if config.key_value_heads < config.num_heads:
            heads += f" of {config.key_value_heads} groups"
    return f"{config.num_layers} layers{heads}, {config.inner_channels} inner channels"
