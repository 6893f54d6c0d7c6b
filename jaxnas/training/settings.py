"""How candidates are trained."""

import dataclasses

OPTIMIZERS = ("adamw", "muon")
# Of the peak rate that a model was trained with, when it is trained on: see
# experiments/compress.
FURTHER_SHARE = 0.1
LAST_DECAY = 0.5  # of the winner's last training's steps, see experiments/recipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Hyperparameters of one training; the same for all candidates of a run."""

    window: int  # tokens a sample
    batch: int  # samples a step
    accumulate: int = 1  # parts that a step's samples are differentiated in
    learning_rate: float  # the schedule's peak
    optimizer: str = "adamw"  # of OPTIMIZERS
    weight_decay: float = 0.1
    beta2: float = 0.95
    clip_norm: float = 1.0  # of the whole gradient
    warmup_share: float = 0.1  # of all steps
    decay_share: float = 0.9  # of all steps, the last ones
    steps_per_call: int = 20
    teaching: float = 0.0  # share of the loss that is the distance to a teacher
    # What weights are rounded to in the forward pass, see `jaxnas.compress.straight`.
    rounding: str | None = None
