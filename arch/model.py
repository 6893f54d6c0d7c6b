"""The language model: embedding, a stack of blocks, norm, head."""

import functools
from typing import Any, NamedTuple, TypeAlias, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from arch.block import Block, is_recomputed, sublayers_of
from arch.config import ArchitectureConfig
from arch.families import has_embedding_norm, has_norm_bias
from arch.initial import embedding_deviation, initializer
from arch.layers.dense import flat_product
from arch.layers.norms import Norm
from arch.layers.positions import sinusoidal
from arch.layers.sublayer import tokens_read
from arch.traits import Traits, channel_index, is_encoding, traits_of

# Up to here the stack is unrolled, beyond it stays a loop, which compiles
# faster and steps slower.
UNROLLED_LAYERS = 7

# Sinusoids enter at a tenth of the embeddings' initial scale: at their full
# scale they hide which token it is (measured in experiments/initial).
POSITION_SCALE = 0.1

# A model's parameters: arrays by name, in the modules' own tree.
Params: TypeAlias = dict[str, Any]

# Logits differ in digits that bfloat16 does not have.
_in_float32 = functools.partial(flat_product, preferred_element_type=jnp.float32)


# Made once: while Flax makes a class, others of its classes are not whole, and
# models are traced by several threads.
STACKS = {
    unrolled: nn.scan(
        Block,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=(0, nn.broadcast, 0, nn.broadcast, 0, 0),
        unroll=unrolled,
    )
    for unrolled in (False, True)
}


class ModelState(NamedTuple):
    """What a model remembers of the tokens it has read."""

    blocks: dict  # sub-layer name -> its state, every leaf stacked [layers, ...]
    read: jax.Array  # i32[B], tokens


_States = TypeVar("_States", ModelState, None)


class LanguageModel(nn.Module):
    """A causal language model of any family.

    Attributes:
      config: the architecture; with traits as arrays, the shape that holds it.
      dtype: of the residual stream and of what enters a matrix product;
        parameters, norms, attention scores and logits are float32.
      unrolled: whether each layer is compiled for itself, which takes longer to
        compile and less to run; by default, as `UNROLLED_LAYERS` says.
    """

    config: ArchitectureConfig
    dtype: jax.typing.DTypeLike = jnp.float32
    unrolled: bool | None = None

    def setup(self) -> None:
        config = self.config
        self.embed = nn.Embed(
            config.vocab_size,
            config.hidden_dim,
            dtype=self.dtype,
            embedding_init=initializer(config, "embed"),
        )
        unrolled = self.unrolled
        if unrolled is None:
            unrolled = config.num_layers <= UNROLLED_LAYERS
        # What is computed again must not be computed ahead of its turn: unrolled,
        # XLA does that, and holds all of it.
        unrolled = unrolled and not is_recomputed(config, config.max_seq_length)
        self.blocks = STACKS[unrolled](config, self.dtype)
        bias = has_norm_bias(config.arch_type) or config.biases
        if has_embedding_norm(config.arch_type):
            self.embed_norm = Norm(bias, config.norm_epsilon)
        self.norm = Norm(bias, config.norm_epsilon)
        if config.learned_positions and config.position_encoding == "absolute":
            self.positions = nn.Embed(
                config.max_seq_length,
                config.hidden_dim,
                dtype=self.dtype,
                embedding_init=initializer(config, "positions"),
            )
        if not config.tie_embeddings:
            self.head = nn.Dense(
                config.vocab_size,
                use_bias=config.head_bias,
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
        x, _ = self._read(tokens, None, None, traits, dropout_key)
        return self.logits(x, traits)

    def extend(
        self, tokens: jax.Array, states: ModelState, lengths: jax.Array | None = None
    ) -> tuple[jax.Array, ModelState]:
        """Reads T more tokens of sequences begun before.

        Args:
          tokens: i32[B, T].
          states: from `init_states` or an earlier call. Reading past their
            capacity is not checked.
          lengths: i32[B], real tokens of each row, those after them are padding
            whose logits mean nothing; None if all are real.

        Returns:
          f32[B, T, V] and the states after the real tokens.
        """
        x, states = self._read(tokens, states, lengths, None, None)
        return self.logits(x), states

    def read_prompt(
        self, tokens: jax.Array, states: ModelState, lengths: jax.Array | None = None
    ) -> tuple[jax.Array, ModelState]:
        """As `extend`, with the logits after each row's last real token only.

        Returns:
          f32[B, V] and the states. Every row has a real token.
        """
        x, states = self._read(tokens, states, lengths, None, None)
        if lengths is None:
            last = x[:, -1:]
        else:
            last = jnp.take_along_axis(x, (lengths - 1)[:, None, None], axis=1)
        return self.logits(last)[:, 0], states

    def embed_tokens(
        self, tokens: jax.Array, read: jax.Array, traits: Traits | None = None
    ) -> jax.Array:
        """What the first block reads.

        Args:
          tokens: i32[B, T].
          read: i32[B or 1], tokens before them.
          traits: as for a whole call.

        Returns:
          [B, T, D].
        """
        config = self.config
        traits = traits_of(config) if traits is None else traits
        x = self.embed(tokens)
        if (absolute := is_encoding(traits, "absolute")) is not False:
            channels, true = channel_index(config.hidden_dim, traits.width)
            positions = read[:, None] + jnp.arange(tokens.shape[1])[None]
            if config.learned_positions:
                # What is behind the table is padding: there must be a number.
                last = config.max_seq_length - 1
                table = self.positions(jnp.minimum(positions, last))
            else:
                table = sinusoidal(positions, channels, traits.width)
                table = POSITION_SCALE * embedding_deviation(config) * table
            x = x + table * (true & absolute)[None, None, :]
        if has_embedding_norm(config.arch_type):
            x = self.embed_norm(x, traits)
        return x.astype(self.dtype)

    def logits(self, x: jax.Array, traits: Traits | None = None) -> jax.Array:
        """Returns the logits f32[B, T, V] of what the last block wrote, [B, T, D]."""
        x = self.norm(x, traits_of(self.config) if traits is None else traits)
        if not self.config.tie_embeddings:
            return self.head(x)
        table = self.embed.embedding.astype(self.dtype)
        return _in_float32(x, table.T, (((2,), (0,)), ((), ())))

    def _read(
        self,
        tokens: jax.Array,
        states: _States,
        lengths: jax.Array | None,
        traits: Traits | None,
        dropout_key: jax.Array | None,
    ) -> tuple[jax.Array, _States]:
        config = self.config
        blocks, read = (None, jnp.zeros(1, jnp.int32)) if states is None else states
        traits = traits_of(config) if traits is None else traits
        keys, layers = None, jnp.arange(config.num_layers)
        if dropout_key is not None:
            keys = jax.vmap(jax.random.fold_in, (None, 0))(dropout_key, layers)
        present = None if isinstance(traits.depth, int) else layers < traits.depth
        x = self.embed_tokens(tokens, read, traits)
        x, blocks = self.blocks(x, blocks, traits, keys, lengths, present, layers)
        if states is not None:
            read = read + tokens_read(lengths, tokens.shape[1])
            states = ModelState(blocks, read)
        return x, states


def build_model(
    config: ArchitectureConfig,
    dtype: jax.typing.DTypeLike = jnp.float32,
    unrolled: bool | None = None,
) -> LanguageModel:
    """The Flax module of a config; arguments as `LanguageModel`'s attributes."""
    return LanguageModel(config, dtype, unrolled)


def init_states(
    config: ArchitectureConfig,
    batch: int,
    capacity: int,
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> ModelState:
    """What `extend` starts from: nothing read.

    Args:
      config: of the model.
      batch: B, sequences read side by side.
      capacity: tokens that attention can remember; a recurrent state has none.
      dtype: of what is kept as it was computed; sums stay float32.
    """
    state = {
        name: layer.init_state(config, batch, capacity, dtype)
        for name, layer in sublayers_of(config.arch_type).items()
    }
    layers = config.num_layers
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf] * layers), state)
    return ModelState(stacked, jnp.zeros(batch, jnp.int32))
