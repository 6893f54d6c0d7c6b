"""A linear layer over the last axes of an array."""

import functools
import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from arch.config import ArchitectureConfig
from arch.initial import initializer


def dense(
    config: ArchitectureConfig,
    dtype: jax.typing.DTypeLike,
    name: str,
    features: int | Sequence[int],
    axis: int | Sequence[int] = -1,
    bias: bool = False,
) -> nn.DenseGeneral:
    """The layer of this name, with the initial weights that its name decides.

    Args:
      config: of the model.
      dtype: of the product.
      name: of the parameters.
      features: output channels, one number an axis.
      axis: input channels: the last axis, or the last few.
      bias: adds one of the output's shape.
    """
    return nn.DenseGeneral(
        features,
        axis,
        use_bias=bias,
        dtype=dtype,
        kernel_init=initializer(config, name),
        dot_general=flat_product,
        name=name,
    )


def flat_product(
    x: jax.Array,
    kernel: jax.Array,
    dimension_numbers: jax.lax.DotDimensionNumbers,
    precision: jax.lax.PrecisionLike = None,
    preferred_element_type: jax.typing.DTypeLike | None = None,
) -> jax.Array:
    """`jax.lax.dot_general` of x's last axes and a kernel's first, as two matrices.

    XLA makes transposed copies for the gradient of a kernel that is multiplied with
    more than two axes; as matrices it makes none.

    Args:
      x: [..., inputs].
      kernel: [inputs, outputs].
      dimension_numbers: contract all inputs, batch none.
      precision: as for `dot_general`.
      preferred_element_type: likewise.

    Returns:
      [..., outputs].
    """
    (inputs, _), _ = dimension_numbers
    rows, outputs = x.shape[: -len(inputs)], kernel.shape[len(inputs) :]
    matrix = kernel.reshape(-1, math.prod(outputs))
    flat = x.reshape(math.prod(rows), matrix.shape[0])
    product = _product(flat, matrix, precision, preferred_element_type)
    return product.reshape(*rows, *outputs)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _product(
    x: jax.Array,
    matrix: jax.Array,
    precision: jax.lax.PrecisionLike,
    dtype: jax.typing.DTypeLike | None,
) -> jax.Array:
    return jnp.matmul(x, matrix, precision=precision, preferred_element_type=dtype)


def _product_forward(
    x: jax.Array,
    matrix: jax.Array,
    precision: jax.lax.PrecisionLike,
    dtype: jax.typing.DTypeLike | None,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _product(x, matrix, precision, dtype), (x, matrix)


def _product_backward(
    precision: jax.lax.PrecisionLike,
    dtype: jax.typing.DTypeLike | None,
    inputs: tuple[jax.Array, jax.Array],
    grad: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    x, matrix = inputs
    of_x = jnp.matmul(grad, matrix.T, precision=precision).astype(x.dtype)
    if x.shape[1] <= grad.shape[1]:
        of_matrix = jnp.matmul(_apart(x.T), grad, precision=precision)
    else:
        of_matrix = _apart(jnp.matmul(_apart(grad.T), x, precision=precision)).T
    return of_x, of_matrix.astype(matrix.dtype)


def _apart(x: jax.Array) -> jax.Array:
    """Keeps XLA on a CPU from making a transpose a part of the product.

    With the smaller factor transposed in memory it is up to twice as fast.
    """
    return jax.lax.platform_dependent(
        x, cpu=jax.lax.optimization_barrier, default=lambda x: x
    )


_product.defvjp(_product_forward, _product_backward)
