"""A tiny model, and noise to train it on."""

import functools

import jax.numpy as jnp
import numpy as np

from arch import ArchitectureConfig
from jaxnas.data import Dataset
from jaxnas.data.tokenizer import train_tokenizer
from jaxnas.evaluation.task import Task
from jaxnas.train.settings import TrainSettings

VOCAB = 257  # bytes, and the end of a text
TOKENS = 600

TINY = ArchitectureConfig(
    arch_type="transformer",
    num_layers=1,
    hidden_dim=32,
    num_heads=2,
    ffn_multiplier=2.0,
    normalization="rmsnorm",
    activation="gelu",
    position_encoding="rope",
    vocab_size=VOCAB,
    max_seq_length=12,
)


@functools.cache
def noise_task(settings: TrainSettings, kinds: int = VOCAB) -> Task:
    """Tokens in no order, of so many kinds."""
    tokens = np.random.default_rng(0).integers(0, kinds, TOKENS).astype(np.uint16)
    dataset = Dataset(
        spec="noise",
        corpus_hash="",
        train=tokens,
        validation=tokens[::-1].copy(),
        test=tokens,
        token_bytes=np.ones(VOCAB, np.int32),
        tokenizer=train_tokenizer(["ab"], VOCAB),
        vocab_size=VOCAB,
        statistics={},
    )
    return Task(dataset=dataset, settings=settings, seed=0, dtype=jnp.float32)
