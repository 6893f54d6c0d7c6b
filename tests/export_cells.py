"""Models for the tests of export and import: every cell that a class computes."""

import dataclasses
import itertools

import jax
import numpy as np

from arch import ArchitectureConfig, build_model
from arch.config import ACTIVATIONS, NORMALIZATIONS, POSITION_ENCODINGS
from arch.families import FAMILIES
from arch.initial import draw_parameters
from jaxnas.data import train_tokenizer

BASE = ArchitectureConfig(
    arch_type="transformer",
    num_layers=2,
    hidden_dim=32,
    num_heads=4,
    ffn_multiplier=4.0,
    normalization="rmsnorm",
    activation="swiglu",
    position_encoding="rope",
    vocab_size=300,  # more than the tokenizer has
    max_seq_length=28,
)
TEXT = "def f(x):\n    return x  # <|endoftext|> é\n"
TOKENS = train_tokenizer([TEXT] * 3, 280)

# The table: (norm, position, activation) -> class, for attention.
ATTENTION_CELLS = {
    ("rmsnorm", "rope", "swiglu"): "LlamaForCausalLM",
    ("rmsnorm", "rope", "geglu"): "LlamaForCausalLM",
    ("rmsnorm", "rope", "silu"): "ArceeForCausalLM",
    ("rmsnorm", "rope", "gelu"): "ArceeForCausalLM",
    ("rmsnorm", "rope", "relu2"): "ArceeForCausalLM",
    ("layernorm", "rope", "relu2"): "Starcoder2ForCausalLM",
    ("layernorm", "absolute", "relu2"): "GPT2LMHeadModel",
    ("layernorm", "rope", "silu"): "Starcoder2ForCausalLM",
    ("layernorm", "rope", "gelu"): "Starcoder2ForCausalLM",
    ("layernorm", "rope", "swiglu"): "StableLmForCausalLM",
    ("layernorm", "rope", "geglu"): "StableLmForCausalLM",
    ("layernorm", "absolute", "gelu"): "GPT2LMHeadModel",
    ("layernorm", "absolute", "silu"): "GPT2LMHeadModel",
    ("layernorm", "alibi", "gelu"): "MptForCausalLM",
}
KV_HEADS = (1, 2, 4)  # multi-query, grouped, and every head its own


def cell(family, norm="rmsnorm", position="rope", activation="swiglu", **others):
    """The config of a cell."""
    return dataclasses.replace(
        BASE,
        arch_type=family,
        normalization=norm,
        position_encoding=position,
        activation=activation,
        **others,
    )


def expected_class(config):
    """What the issue's table says: the class's name, None if there is none."""
    if config.arch_type == "rwkv":
        return "RwkvForCausalLM"
    if config.arch_type == "mamba":
        return "MambaForCausalLM" if config.normalization == "rmsnorm" else None
    if config.arch_type == "linear_transformer":
        return None
    position = config.position_encoding
    found = ATTENTION_CELLS.get((config.normalization, position, config.activation))
    if position == "alibi" and config.feedforward_dim != 4 * config.hidden_dim:
        return None
    if position == "absolute" and found and config.key_value_heads == 1:
        return "GPTBigCodeForCausalLM"
    shared = config.key_value_heads != config.num_heads
    return None if shared and position != "rope" else found


def all_cells():
    """Family x norm x activation x position, and what else decides."""
    grid = itertools.product(FAMILIES, NORMALIZATIONS, POSITION_ENCODINGS, ACTIVATIONS)
    for family, *genes in grid:
        grouped = family == "grouped_query_attention"
        for kv_heads, ffn in itertools.product(
            KV_HEADS if grouped else (None,), (4.0, 2.0)
        ):
            yield cell(family, *genes, kv_heads=kv_heads, ffn_multiplier=ffn)


def exact_cells():
    """Each model that has a class, and the sizes that matter to one."""
    attention = [
        config
        for config in all_cells()
        if expected_class(config) is not None
        and config.arch_type not in ("mamba", "rwkv")
        and config.ffn_multiplier == 4.0
    ]
    return [
        *attention,
        cell("mamba"),
        cell("mamba", inner_dim=96),  # as pruning leaves it
        cell("mamba", inner_dim=40),
        cell("rwkv", ffn_multiplier=3.0),
        cell("transformer", ffn_dim=72),
        # As pruning leaves it: fewer heads than would fill the residual stream.
        cell("transformer", num_heads=2, attention_dim=16),
        cell("transformer", "layernorm", "absolute", "gelu", ffn_dim=72),
        cell("transformer", "layernorm", "alibi", "gelu", num_heads=1),
        # Slopes of a count that is no power of two.
        cell("transformer", "layernorm", "alibi", "gelu", num_heads=6, hidden_dim=48),
    ]


def name_of(config):
    """A test's name."""
    words = [
        config.arch_type,
        config.normalization,
        config.position_encoding,
        config.activation,
    ]
    for field in ("kv_heads", "inner_dim", "ffn_dim", "attention_dim"):
        if (value := getattr(config, field)) is not None:
            words.append(f"{field}{value}")
    return "-".join([*words, f"heads{config.num_heads}"])


def perturbed(config, seed=0):
    """Parameters in which no value is its initial one, float32."""
    rng = np.random.default_rng(seed)

    def change(leaf):
        changed = (leaf + 0.2 * rng.standard_normal(leaf.shape)).astype(np.float32)
        assert (changed != leaf).all()
        return changed

    drawn = draw_parameters(build_model(config), jax.random.key(seed))
    return jax.tree.map(change, drawn)


def tied(config):
    """The same with one matrix for both embeddings."""
    return dataclasses.replace(config, tie_embeddings=True)
