"""Feed-forward activations, plain and gated (Shazeer 2020, arXiv:2002.05202).

The square of ReLU is of So et al. 2021, arXiv:2109.08668.
"""

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
    lambda gate, up: jax.nn.relu(up) ** 2,
)
# Where there is no gate, nothing asks for the two that need one.
_PLAIN = (*_BRANCHES[:2], *_BRANCHES[:2], *_BRANCHES[4:])


def activate(gate: jax.Array | None, up: jax.Array, traits: Traits) -> jax.Array:
    """Applies the traits' activation; without a gate, only plain ones exist."""
    branches = _PLAIN if gate is None else _BRANCHES
    return choose(traits.activation, branches, gate, up)
