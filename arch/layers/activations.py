"""Feed-forward activations, plain and gated (Shazeer 2020, arXiv:2002.05202).

The square of ReLU is of So et al. 2021, arXiv:2109.08668.
"""

import functools

import jax

from arch.traits import Traits, choose

gelu = functools.partial(jax.nn.gelu, approximate=False)  # the erf form
_tanh_gelu = functools.partial(jax.nn.gelu, approximate=True)

# (gate, up) -> inner activation, in the order of ACTIVATIONS.
_BRANCHES = (
    lambda gate, up: gelu(up),
    lambda gate, up: jax.nn.silu(up),
    lambda gate, up: gelu(gate) * up,
    lambda gate, up: jax.nn.silu(gate) * up,
    lambda gate, up: jax.nn.relu(up) ** 2,
)
_TANH_BRANCHES = (
    lambda gate, up: _tanh_gelu(up),
    _BRANCHES[1],
    lambda gate, up: _tanh_gelu(gate) * up,
    *_BRANCHES[3:],
)
# Where there is no gate, nothing asks for the two that need one.
_PLAIN = (0, 1, 0, 1, 4)


def activate(
    gate: jax.Array | None, up: jax.Array, traits: Traits, tanh: bool = False
) -> jax.Array:
    """Applies the traits' activation; without a gate, only plain ones exist.

    `tanh` is for the approximation of GELU.
    """
    every = _TANH_BRANCHES if tanh else _BRANCHES
    branches = every if gate is not None else [every[index] for index in _PLAIN]
    return choose(traits.activation, branches, gate, up)
