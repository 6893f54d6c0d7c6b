"""Feed-forward activations, plain and gated (Shazeer 2020, arXiv:2002.05202)."""

import functools

import jax

from arch.traits import Traits, choose

gelu = functools.partial(jax.nn.gelu, approximate=False)  # the erf form

# (gate, up) -> inner activation, in the order of ACTIVATIONS.
_BRANCHES = (
    lambda gate, up: gelu(up),
    lambda gate, up: jax.nn.silu(up),
    lambda gate, up: gelu(gate) * up,
    lambda gate, up: jax.nn.silu(gate) * up,
)


def activate(gate: jax.Array | None, up: jax.Array, traits: Traits) -> jax.Array:
    """Applies the traits' activation; without a gate, only plain ones exist."""
    branches = _BRANCHES[:2] if gate is None else _BRANCHES
    return choose(traits.activation, branches, gate, up)
