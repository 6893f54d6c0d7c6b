"""What a forward pass reads: training, prefill and decode in one value."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """`tokens` new tokens of each sequence, after `past` that are remembered.

    Raises:
      ValueError: a count that is no int or out of its range.
    """

    batch: int  # sequences side by side
    tokens: int  # new ones of each, at least 1
    logits: int  # tokens of each sequence whose logits are taken
    past: int = 0  # read before
    keeps_cache: bool = False  # leaves a state for the tokens that come next

    def __post_init__(self) -> None:
        for name, least, most in (
            ("batch", 1, None),
            ("tokens", 1, None),
            ("past", 0, None if self.keeps_cache else 0),
            ("logits", 0, self.tokens),
        ):
            got = getattr(self, name)
            if not (
                isinstance(got, int) and least <= got and (most is None or got <= most)
            ):
                allowed = f"at least {least}" if most is None else f"{least} to {most}"
                raise ValueError(f"{name}={got!r} is not allowed: needs {allowed}")

    @property
    def positions(self) -> int:
        """New tokens of all sequences."""
        return self.batch * self.tokens

    @property
    def loads(self) -> int:
        """1 if a state is read from memory."""
        return int(self.past > 0)

    @property
    def stores(self) -> int:
        """1 if a state is written to memory."""
        return int(self.keeps_cache)


def forward(batch: int = 1, tokens: int = 128) -> Workload:
    """Whole sequences, logits of all tokens, nothing remembered: training."""
    return Workload(batch=batch, tokens=tokens, logits=tokens)


def prefill(batch: int = 1, tokens: int = 128) -> Workload:
    """A prompt: the logits of its last token, and a state to go on from."""
    return Workload(batch=batch, tokens=tokens, logits=1, keeps_cache=True)


def decode(batch: int = 1, past: int = 128) -> Workload:
    """One more token, after `past` tokens."""
    return Workload(batch=batch, tokens=1, past=past, logits=1, keeps_cache=True)
