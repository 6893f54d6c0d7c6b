"""What one layer carries from token to token, family by family.

Attention's keys and values grow with the tokens read. What a recurrent family
carries does not: inputs of the tokens just before, kept as they were computed,
and sums over all earlier tokens, in float32. Counters are left out.
"""

from typing import NamedTuple

from arch.config import MAMBA_STATE, MAMBA_TAPS
from arch.cost.sizes import Count, Sizes, in_window


class State(NamedTuple):
    """Values of one layer's state."""

    values: Count  # kept at the width of activations
    sums: Count  # float32


def key_value_cache(sizes: Sizes, batch: int, tokens: int) -> State:
    """Keys and values of every token in the window, of heads that have their own."""
    return State(2 * batch * in_window(sizes, tokens) * sizes.kv_channels, 0)


def linear_state(sizes: Sizes, batch: int) -> State:
    """A sum of key-value products [H, H], and one of keys [H], of each head."""
    return State(0, batch * sizes.attention * (sizes.head_dim + 1))


def mamba_state(sizes: Sizes, batch: int) -> State:
    """The convolution's last inputs and the scan's states, of each inner channel."""
    channels = batch * sizes.inner
    return State((MAMBA_TAPS - 1) * channels, MAMBA_STATE * channels)


def rwkv_state(sizes: Sizes, batch: int) -> State:
    """The last input of both mixes, two sums and their exponent, of each channel."""
    channels = batch * sizes.hidden
    return State(2 * channels, 3 * channels)


_RECURRENT = {
    "linear_transformer": linear_state,
    "mamba": mamba_state,
    "rwkv": rwkv_state,
}


def state_of(sizes: Sizes, batch: int, tokens: int) -> State:
    """One layer's state after `tokens` tokens of each sequence."""
    if sizes.arch_type in _RECURRENT:
        return _RECURRENT[sizes.arch_type](sizes, batch)
    return key_value_cache(sizes, batch, tokens)
