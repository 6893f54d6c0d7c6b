"""How candidates are trained."""

import dataclasses

LAST_DECAY = 0.5  # of the winner's last training's steps, see experiments/recipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Hyperparameters of one training; the same for all candidates of a run."""

    window: int  # tokens a sample
    batch: int  # samples a step
    accumulate: int = 1  # parts that a step's samples are differentiated in
    learning_rate: float  # the schedule's peak
    weight_decay: float = 0.1
    beta2: float = 0.95
    clip_norm: float = 1.0  # of the whole gradient
    warmup_share: float = 0.1  # of all steps
    decay_share: float = 0.9  # of all steps, the last ones
    steps_per_call: int = 20
