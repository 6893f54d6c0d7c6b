"""When training further is of no use: a loss that explodes, or stays flat."""

import math

import numpy as np

EXPLODED = 1.0  # nats per token above guessing


def diverged(losses: np.ndarray, begin: int, vocab_size: int, warm: bool) -> str | None:
    """Why a training has failed, or None.

    Args:
      losses: f32[steps], nats per token, of the last call.
      begin: the call's first step.
      vocab_size: tokens that one can guess among.
      warm: whether the warm-up is over: what comes before may overshoot.
    """
    finite = np.isfinite(losses)
    if not finite.all():
        bad = int(np.argmin(finite))
        return f"the training loss is {losses[bad]} at step {begin + bad}"
    guessing = math.log(vocab_size)
    if warm and losses.mean() > guessing + EXPLODED:
        return (
            f"the training loss is {losses.mean():.3f} nats from step {begin} on, "
            f"guessing has {guessing:.3f}: it diverged"
        )
    return None


def is_flat(curve: np.ndarray, least: float) -> bool:
    """Whether a loss fell by less than a share over the second half of a curve.

    The curve must be long enough for its halves' means to be free of noise, which
    is why a rung's first half is never judged.

    Args:
      curve: f32[steps], nats per token since the learning rate is constant.
      least: share of the loss by which it has to fall.
    """
    half = len(curve) // 2
    if half == 0:
        return False
    before, after = curve[:half].mean(), curve[-half:].mean()
    return bool(after > (1 - least) * before)
