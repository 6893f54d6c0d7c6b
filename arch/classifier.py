"""A classifier of sequences of vectors, on the blocks of a language model."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from arch.config import ArchitectureConfig
from arch.families import has_embedding_norm, has_norm_bias
from arch.layers.norms import Norm
from arch.layers.positions import sinusoidal
from arch.model import POSITION_SCALE, STACKS, UNROLLED_LAYERS
from arch.traits import Traits, channel_index, is_encoding, traits_of


class SequenceClassifier(nn.Module):
    """Which class a sequence is of: the rows of an image, the frames of a sound.

    A vector takes the place of a token's embedding; all else is the family's, as
    `LanguageModel` has it. The blocks are causal, so the class is read where the last
    vector was.

    Attributes:
      config: of the blocks; its vocabulary is not used.
      classes: how many there are.
      dtype: as for `LanguageModel`.
    """

    config: ArchitectureConfig
    classes: int
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        vectors: jax.Array,
        dropout_key: jax.Array | None = None,
        traits: Traits | None = None,
    ) -> jax.Array:
        """f32[B, T, F] -> f32[B, classes], logits; without a key no dropout.

        With traits as arrays it is the model of a member, padded into this shape as
        `arch.padding` pads a language model's blocks.
        """
        config = self.config
        traits = traits_of(config) if traits is None else traits
        family, layers = config.arch_type, jnp.arange(config.num_layers)
        present = None if isinstance(traits.depth, int) else layers < traits.depth
        x = nn.Dense(config.hidden_dim, dtype=self.dtype, name="enter")(vectors)
        if (absolute := is_encoding(traits, "absolute")) is not False:
            channels, true = channel_index(config.hidden_dim, traits.width)
            positions = jnp.arange(vectors.shape[1])[None]
            table = sinusoidal(positions, channels, traits.width)
            x = x + POSITION_SCALE * table * (true & absolute)[None, None, :]
        bias = has_norm_bias(family)
        if has_embedding_norm(family):
            x = Norm(bias, name="embed_norm")(x, traits)
        keys = None
        if dropout_key is not None:
            keys = jax.vmap(jax.random.fold_in, (None, 0))(dropout_key, layers)
        stack = STACKS[config.num_layers <= UNROLLED_LAYERS]
        blocks = stack(config, self.dtype, name="blocks")
        x, _ = blocks(x.astype(self.dtype), None, traits, keys, None, present, layers)
        last = Norm(bias, name="norm")(x[:, -1:], traits)[:, 0]
        return nn.Dense(self.classes, name="classes")(last.astype(jnp.float32))
