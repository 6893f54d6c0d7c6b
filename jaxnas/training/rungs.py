"""Phases as rungs of one training: each goes on where the one before was stable.

Warmup, stable, decay (Hu et al. 2024, arXiv:2404.06395). The score at a rung's
end is that of a whole training which ends there: the learning rate decays on a
copy, and the weights from before the decay go on to the next rung (Hägele et al.
2024, arXiv:2405.18392).
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from jaxnas.training.lengths import PhaseLength, steps_of
from jaxnas.training.loop import Schedule, batch_starts
from jaxnas.training.settings import TrainSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rung:
    """A part of a training, in steps counted from the training's first."""

    name: str
    phase: PhaseLength
    begin: int  # where a survivor of the rung before goes on
    keep: int | None  # whose state goes on to the next rung; None for the last rung
    steps: int  # the end, when the learning rate has decayed
    warmup_of: int  # steps of the first rung: its warm-up is everyone's

    @property
    def new_steps(self) -> int:
        """What the rung costs a survivor of the one before."""
        return self.steps - self.begin

    def schedule(self, settings: TrainSettings) -> Schedule:
        """The schedule of a training that ends with this rung."""
        return Schedule.over(self.steps, settings, self.warmup_of)

    def stable_until(self, settings: TrainSettings) -> int:
        """Steps before the decay begins."""
        return int(self.steps - self.schedule(settings).decay)


def rungs_of(
    phases: Mapping[str, PhaseLength], settings: TrainSettings
) -> tuple[Rung, ...]:
    """The rungs of phases that follow each other.

    Raises:
      ValueError: a phase that is no longer than the one before, or has no stable
        part left to go on from.
    """
    names = list(phases)
    lengths = [steps_of(phase, settings) for phase in phases.values()]
    rungs: list[Rung] = []
    for place, (name, steps) in enumerate(zip(names, lengths, strict=True)):
        if place and steps <= lengths[place - 1]:
            raise ValueError(
                f"phase {name} has {steps} steps, {names[place - 1]} before it "
                f"{lengths[place - 1]}: each must be longer than the one before"
            )
        begin = 0
        if place:
            begin = rungs[-1].stable_until(settings)
            if place > 1 and begin <= rungs[-1].begin:
                raise ValueError(
                    f"phase {names[place - 1]} adds no step before its decay to the "
                    f"phase before it: make it longer"
                )
            rungs[-1] = dataclasses.replace(rungs[-1], keep=begin)
        rung = Rung(
            name=name,
            phase=phases[name],
            begin=begin,
            keep=None,
            steps=steps,
            warmup_of=lengths[0],
        )
        rungs.append(rung)
    warmed = math.ceil(rungs[0].schedule(settings).warmup)
    if len(rungs) > 1 and rungs[1].begin < warmed:
        raise ValueError(
            f"decay_share={settings.decay_share} leaves {names[0]} "
            f"{rungs[1].begin} steps before the decay, of which {warmed} are warm-up: "
            f"with several phases the two shares must leave a stable part"
        )
    return tuple(rungs)


def rung_starts(
    seed: int, tokens: int, settings: TrainSettings, rungs: Sequence[Rung]
) -> np.ndarray:
    """Where the windows of a training through these rungs begin: i32[steps, batch].

    Each phase sees its own windows; the steps before it are those of the phases
    before, so that a survivor's training is one training.
    """
    parts, done = [], 0
    for rung in rungs:
        parts.append(batch_starts(seed, tokens, settings, rung.phase)[done:])
        done = rung.steps
    return np.concatenate(parts)
