"""How candidates are trained."""

import dataclasses

OPTIMIZERS = ("adamw", "muon")
# Of the peak rate that a model was trained with, when it is trained on: see
# experiments/compress.
FURTHER_SHARE = 0.1
LAST_DECAY = 0.5  # of the steps of `train`, `distil` and `compress`
# Of the steps of a winner's last training, see experiments/recipe.
FINISH_DECAY = 0.9
FINISH_WARMUP = 0.02


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Hyperparameters of one training; the same for all candidates of a run.

    Raises:
      ValueError: one of them cannot be used.
    """

    window: int  # tokens a sample
    batch: int  # samples a step
    accumulate: int = 1  # parts that a step's samples are differentiated in
    learning_rate: float  # the schedule's peak
    optimizer: str = "adamw"  # of OPTIMIZERS
    weight_decay: float = 0.1
    beta2: float = 0.99  # see experiments/recipe
    clip_norm: float = 1.0  # of the whole gradient
    warmup_share: float = 0.1  # of all steps
    decay_share: float = 0.9  # of all steps, the last ones
    steps_per_call: int = 20
    teaching: float = 0.0  # share of the loss that is the distance to a teacher
    # What weights are rounded to in the forward pass, see `jaxnas.compress.straight`.
    rounding: str | None = None

    def __post_init__(self) -> None:
        for name in ("window", "batch", "accumulate", "steps_per_call"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.batch % self.accumulate:
            raise ValueError(
                f"accumulate must divide batch={self.batch}, got {self.accumulate}"
            )
        if self.optimizer not in OPTIMIZERS:
            allowed = " | ".join(OPTIMIZERS)
            raise ValueError(f"optimizer must be {allowed}, got {self.optimizer!r}")
