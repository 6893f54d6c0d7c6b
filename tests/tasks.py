"""A tiny model, noise to train it on, and plans for that."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np

from arch import ArchitectureConfig
from jaxnas.data import Dataset
from jaxnas.data.tokenizer import train_tokenizer
from jaxnas.evaluation.evaluator import Evaluator
from jaxnas.population.executor import execute
from jaxnas.population.plan import Bucket, Plan
from jaxnas.population.trainer import Trainer
from jaxnas.training.settings import TrainSettings
from jaxnas.training.task import Task

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


def plan_of(*buckets, prepared=()):
    """Buckets as (program, members)."""
    return Plan(
        buckets=tuple(
            Bucket(
                program=program,
                members=members,
                seconds=1.0,
                compile_seconds=1.0,
                waste=0.0,
            )
            for program, members in buckets
        ),
        prepared=prepared,
        seconds=1.0,
    )


def executed(plan, configs, work, compiler, **options):
    """Outcomes of a plan as they come; a candidate's key is its place."""
    outcomes = []

    def take(outcome):
        outcomes.append(outcome)
        return True

    execute(plan, dict(enumerate(configs)), work, compiler, take, **options)
    return outcomes


def evaluator_with(**parts):
    """An evaluator of parts that are its own or its trainer's."""
    own = {field.name for field in dataclasses.fields(Trainer)}
    trains = {name: part for name, part in parts.items() if name in own}
    others = {name: part for name, part in parts.items() if name not in own}
    return Evaluator(trainer=Trainer(**trains), **others)
