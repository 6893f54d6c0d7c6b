"""How much training a candidate gets: three phases, at two scales."""

import dataclasses

from jaxnas.training.settings import TrainSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhaseLength:
    """`samples` windows of the training split, each seen `epochs` times."""

    samples: int
    epochs: int

    def __post_init__(self) -> None:
        if min(self.samples, self.epochs) < 1:
            raise ValueError(f"a phase needs at least 1 sample and epoch, got {self}")


def steps_of(phase: PhaseLength, settings: TrainSettings) -> int:
    """Steps of a training from the first one to the phase's end."""
    return max(1, phase.samples * phase.epochs // settings.batch)


PHASES = {
    "fast": PhaseLength(samples=1_000, epochs=5),
    "medium": PhaseLength(samples=10_000, epochs=10),
    "full": PhaseLength(samples=100_000, epochs=20),
}

# For a laptop: seconds a candidate.
SMALL_PHASES = {
    "fast": PhaseLength(samples=400, epochs=1),
    "medium": PhaseLength(samples=1_600, epochs=1),
    "full": PhaseLength(samples=3_200, epochs=2),
}
