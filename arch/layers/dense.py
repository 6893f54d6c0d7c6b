"""A bias-free linear layer over the last axes of an array."""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax

from arch.config import ArchitectureConfig
from arch.initial import initializer


def dense(
    config: ArchitectureConfig,
    dtype: jax.typing.DTypeLike,
    name: str,
    features: int | Sequence[int],
    axis: int | Sequence[int] = -1,
) -> nn.DenseGeneral:
    """The layer of this name, with the initial weights that its name decides.

    Args:
      config: of the model.
      dtype: of the product.
      name: of the parameters.
      features: output channels, one number an axis.
      axis: input channels: the last axis, or the last few.
    """
    return nn.DenseGeneral(
        features,
        axis,
        use_bias=False,
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
    product = jax.lax.dot_general(
        x.reshape(math.prod(rows), matrix.shape[0]),
        matrix,
        (((1,), (0,)), ((), ())),
        precision,
        preferred_element_type,
    )
    return product.reshape(*rows, *outputs)
