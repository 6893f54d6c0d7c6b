"""How candidates are trained."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Hyperparameters of one training; the same for all candidates of a run."""

    window: int = 128  # tokens a sample
    batch: int = 8  # samples a step
    learning_rate: float = 2e-3  # the schedule's peak
    warmup_share: float = 0.1  # of all steps
    decay_share: float = 0.9  # of all steps, the last ones
    weight_decay: float = 0.1
    clip_norm: float = 1.0  # of the whole gradient
    beta2: float = 0.95
    steps_per_call: int = 20
