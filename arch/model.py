"""The language model: embedding, a stack of blocks, norm, head."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from arch.block import Block
from arch.config import ArchitectureConfig
from arch.initial import embedding_deviation, initializer
from arch.mixers import mixer_of
from arch.norms import Norm
from arch.positions import sinusoidal
from arch.traits import Traits, channel_index, is_encoding, traits_of

# Up to here the stack is unrolled, beyond it stays a loop, which compiles
# faster and steps slower.
UNROLLED_LAYERS = 7

# Sinusoids enter at a tenth of the embeddings' initial scale: at their full
# scale they hide which token it is (measured in experiments/initial).
POSITION_SCALE = 0.1


# Logits differ in digits that bfloat16 does not have.
_in_float32 = functools.partial(jax.lax.dot_general, preferred_element_type=jnp.float32)


class LanguageModel(nn.Module):
    """A causal language model of any family.

    Attributes:
      config: the architecture; with traits as arrays, the shape that holds it.
      dtype: of the residual stream and of what enters a matrix product;
        parameters, norms, attention scores and logits are float32.
    """

    config: ArchitectureConfig
    dtype: jax.typing.DTypeLike = jnp.float32

    def setup(self):
        config = self.config
        self.embed = nn.Embed(
            config.vocab_size,
            config.hidden_dim,
            dtype=self.dtype,
            embedding_init=initializer(config, "embed"),
        )
        stack = nn.scan(
            Block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast, 0),
            length=config.num_layers,
            unroll=config.num_layers if config.num_layers <= UNROLLED_LAYERS else 1,
        )
        self.blocks = stack(config, self.dtype)
        self.norm = Norm()
        if not config.tie_embeddings:
            self.head = nn.Dense(
                config.vocab_size,
                use_bias=False,
                dtype=self.dtype,
                dot_general=_in_float32,
                kernel_init=initializer(config, "head"),
            )

    def __call__(
        self,
        tokens: jax.Array,
        traits: Traits | None = None,
        dropout_key: jax.Array | None = None,
    ) -> jax.Array:
        """Reads whole sequences from their start.

        Args:
          tokens: i32[B, T].
          traits: arrays, for a model padded into this shape; by default the
            config's own, as constants.
          dropout_key: PRNG key, consumed; None switches dropout off.

        Returns:
          f32[B, T, V], the logits of the token after each.
        """
        return self._read(tokens, None, None, traits, dropout_key)[0]

    def extend(self, tokens: jax.Array, states) -> tuple[jax.Array, tuple]:
        """Reads T more tokens of sequences begun before.

        Args:
          tokens: i32[B, T].
          states: from `init_states` or an earlier call.

        Returns:
          f32[B, T, V] and the states after the tokens.
        """
        blocks, read = states
        logits, blocks = self._read(tokens, blocks, read, None, None)
        return logits, (blocks, read + tokens.shape[1])

    def _read(self, tokens, states, read, traits, dropout_key):
        config = self.config
        traits = traits_of(config) if traits is None else traits
        x = self.embed(tokens)
        if (absolute := is_encoding(traits, "absolute")) is not False:
            channels, true = channel_index(config.hidden_dim, traits.width)
            start = jnp.zeros(1, jnp.int32) if read is None else read
            positions = start[:, None] + jnp.arange(tokens.shape[1])[None]
            table = sinusoidal(positions, channels, traits.width)
            scale = POSITION_SCALE * embedding_deviation(config)
            x = x + scale * table * (true & absolute)[None, None, :]
        keys = None
        if dropout_key is not None:
            layers = jnp.arange(config.num_layers)
            keys = jax.vmap(jax.random.fold_in, (None, 0))(dropout_key, layers)
        x, states = self.blocks(x.astype(self.dtype), states, traits, keys)
        x = self.norm(x, traits)
        if not config.tie_embeddings:
            return self.head(x), states
        table = self.embed.embedding.astype(self.dtype)
        return _in_float32(x, table, (((2,), (1,)), ((), ()))), states


def build_model(
    config: ArchitectureConfig, dtype: jax.typing.DTypeLike = jnp.float32
) -> LanguageModel:
    """The Flax module of a config.

    Raises:
      ValueError: the config's family has no modules.
    """
    mixer_of(config.arch_type)
    return LanguageModel(config, dtype)


def init_states(config: ArchitectureConfig, batch: int, capacity: int) -> tuple:
    """What `extend` starts from: every block's empty state, and i32[B] zeros."""
    one = mixer_of(config.arch_type).init_state(config, batch, capacity)
    layers = config.num_layers
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf] * layers), one)
    return stacked, jnp.zeros(batch, jnp.int32)
