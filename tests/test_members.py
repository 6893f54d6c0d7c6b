"""Members of one shape train in one program, each as it would alone."""

import dataclasses
import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arch import ArchitectureConfig, build_model
from arch.config import ACTIVATIONS, NORMALIZATIONS, POSITION_ENCODINGS
from arch.families import FAMILIES
from arch.initial import draw_parameters
from arch.padding import common_shape
from jaxnas.training.loop import (
    Schedule,
    TrainState,
    fresh_state,
    make_trainer,
)
from jaxnas.training.members import (
    extract_state,
    member_training,
    pad_state,
    stack,
    stack_members,
)
from jaxnas.training.settings import TrainSettings

STEPS, VOCAB = 50, 50
SETTINGS = TrainSettings(window=12, batch=4, learning_rate=3e-4, clip_norm=0.5)

GROUPED = "grouped_query_attention"

# What a loop over members may change: 3e-8 was seen.
LAST_BITS = {"rtol": 1e-5, "atol": 1e-6}

# The family that always runs; the others are slow.
ALWAYS = ("transformer",)
PARAMS = [
    pytest.param(family, marks=[pytest.mark.slow] * (family not in ALWAYS))
    for family in FAMILIES
]


# Of the module, so that a family's tests follow each other and share programs.
@pytest.fixture(scope="module", params=PARAMS)
def family(request):
    return request.param


class Training(NamedTuple):
    """A member, and all that its training starts from."""

    config: ArchitectureConfig
    rate: float  # the schedule's peak
    seed: int

    def state(self) -> TrainState:
        drawn = draw_parameters(build_model(self.config), jax.random.key(self.seed))
        return fresh_state(drawn, SETTINGS)

    def schedule(self) -> Schedule:
        settings = dataclasses.replace(SETTINGS, learning_rate=self.rate)
        return Schedule.over(STEPS, settings)

    def key(self) -> jax.Array:
        return jax.random.key(100 + self.seed)


class Bucket(NamedTuple):
    shape: ArchitectureConfig
    members: list[Training]


@functools.cache
def bucket_of(family):
    """Two random configs, twice: other weights, rates and dropout keys.

    A third makes room in the shape. Each has heads of its own.
    """
    rng = np.random.default_rng(FAMILIES.index(family) + 20)
    shuffled = lambda values: rng.permutation(values).tolist()
    tied = bool(rng.integers(2))
    configs = [
        ArchitectureConfig(
            # Without groups the heads of keys are only other ones.
            arch_type="transformer" if (family, heads) == (GROUPED, 4) else family,
            num_layers=layers,
            hidden_dim=width,
            num_heads=heads,
            kv_heads=max(1, heads // 2),
            ffn_multiplier=float(rng.uniform(1, 3)),
            normalization=norm,
            activation=activation,
            position_encoding=position,
            attention_dropout=float(rng.choice([0.05, 0.2])),
            residual_dropout=float(rng.choice([0.05, 0.2])),
            vocab_size=VOCAB,
            tie_embeddings=tied,
            inner_dim=int(rng.integers(20, 100)),
        )
        for layers, heads, width, norm, activation, position in zip(
            shuffled([1, 2, 3]),
            shuffled([1, 2, 4]),
            shuffled(range(16, 65, 8)),
            shuffled(NORMALIZATIONS),
            shuffled(ACTIVATIONS),
            shuffled(POSITION_ENCODINGS),
            strict=False,
        )
    ]
    members = [
        Training(config, rate, seed)
        for seed, (config, rate) in enumerate(
            zip(configs[:2] * 2, (2e-4, 1e-4, 5e-5, 2e-5), strict=True)
        )
    ]
    return Bucket(common_shape(configs), members)


# ---- the programs ----


@functools.cache
def corpus():
    """Tokens with something to learn in them: five ways on from each."""
    rng = np.random.default_rng(0)
    tokens = np.cumsum(rng.choice([1, 3, 7, 11, 20], 2000)) % VOCAB
    return jnp.asarray(tokens.astype(np.uint16))


def starts():
    drawn = np.random.default_rng(1).integers(0, 1900, (STEPS, SETTINGS.batch))
    return drawn.astype(np.int32)


@functools.cache
def trainer(config, dtype=jnp.float32):
    # As a loop the layers compile faster; that it is the same is tested.
    return make_trainer(build_model(config, dtype, unrolled=False), SETTINGS)


@functools.cache
def program(shape, vmapped, dtype=jnp.float32):
    model = build_model(shape, dtype, unrolled=False)
    return jax.jit(member_training(model, SETTINGS, vmapped))


def on_host(tree):
    return jax.tree.map(np.asarray, tree)


def alone(member, state, steps=STEPS, dtype=jnp.float32):
    """The state and losses of an ordinary training."""
    run = trainer(member.config, dtype).run
    state = jax.tree.map(jnp.asarray, state)
    return on_host(
        run(state, corpus(), starts(), member.schedule(), member.key(), steps)
    )


def together(bucket, states, vmapped, steps=STEPS, dtype=jnp.float32, has_traits=True):
    """Each member's state in the shape, and losses."""
    shape, members = bucket
    padded = [
        pad_state(state, member.config, shape)
        for state, member in zip(states, members, strict=True)
    ]
    lanes = stack_members(
        [member.config for member in members] if has_traits else None,
        [member.schedule() for member in members],
        [member.key() for member in members],
    )
    run = program(shape, vmapped, dtype)
    arguments = (stack(padded), lanes, corpus(), starts(), np.int32(steps))
    # JAX takes keys that vmap hands to a scan for used already, which they are not.
    with jax.debug_key_reuse(not vmapped):
        ends, losses = on_host(run(*arguments))
    lane = lambda at: jax.tree.map(lambda leaf: leaf[at], (ends, losses))
    return [lane(at) for at in range(len(members))]


# ---- as alone ----


def with_no_moments(state):
    """The same weights; one step on, Adam's mu is the gradient at them."""
    return fresh_state(state.params, SETTINGS)._replace(step=state.step)


@functools.cache
def references(family):
    """Of each member: its first step, all steps, and one more from their end."""
    found = []
    for member in bucket_of(family).members:
        first = alone(member, member.state(), 1)
        end = alone(member, member.state())
        last = alone(member, with_no_moments(end[0]), 1)
        found.append((first, end, last))
    return found


def adam_of(state):
    return state.moments[1]


def assert_close(got, wanted, tolerance=1e-4):
    """Each tensor within so much of its norm."""
    chex.assert_trees_all_equal_structs(got, wanted)
    leaves = jax.tree_util.tree_leaves_with_path(wanted)
    for (path, leaf), other in zip(leaves, jax.tree.leaves(got), strict=True):
        size, apart = np.linalg.norm(leaf), np.linalg.norm(other - leaf)
        assert apart <= tolerance * size, (jax.tree_util.keystr(path), apart, size)


def test_members_train_as_they_do_alone(family):
    for vmapped in (False, True):  # in one test: a family's references are dear
        check_members(bucket_of(family), references(family), vmapped)


def check_members(bucket, wanted, vmapped):
    fresh = [member.state() for member in bucket.members]
    first = together(bucket, fresh, vmapped, 1)
    end = together(bucket, fresh, vmapped)
    restarted = [with_no_moments(one[1][0]) for one in wanted]
    last = together(bucket, restarted, vmapped, 1)
    for at, member in enumerate(bucket.members):
        for part, of_alone in zip((first, end, last), wanted[at], strict=True):
            state, losses = part[at]
            own = extract_state(state, member.config, bucket.shape)
            # Padding stays exactly zero, of weights and of moments.
            chex.assert_trees_all_equal(
                pad_state(own, member.config, bucket.shape), state
            )
            # Of about 4: to 1e-5 of each.
            np.testing.assert_allclose(losses, of_alone[1], rtol=1e-5)
            assert own.step == of_alone[0].step
            assert_close(own.params, of_alone[0].params)
            # One step from no moments, mu is the gradient. Over many, rounding
            # grows: one bit of each weight at the start moves mu by 2e-4.
            tolerance = 4e-3 if part is end else 1e-4
            assert_close(adam_of(own).mu, adam_of(of_alone[0]).mu, tolerance)
            assert_close(adam_of(own).nu, adam_of(of_alone[0]).nu, tolerance)
    (_, losses) = wanted[0][1]
    assert losses[:5].mean() - losses[-5:].mean() > 0.01


@pytest.mark.parametrize("vmapped", [False, True])
def test_members_of_a_narrow_shape_train_as_they_do_alone(vmapped):
    """What they share is compiled in, and their dropout is data."""
    first = ArchitectureConfig(
        arch_type="transformer",
        num_layers=2,
        hidden_dim=32,
        num_heads=4,
        ffn_multiplier=2.0,
        normalization="rmsnorm",
        activation="swiglu",
        position_encoding="alibi",
        residual_dropout=0.1,
        vocab_size=VOCAB,
    )
    second = dataclasses.replace(
        first, num_layers=1, hidden_dim=16, num_heads=2, residual_dropout=0.0
    )
    members = [Training(first, 1e-4, 0), Training(second, 2e-4, 1)]
    bucket = Bucket(common_shape([first, second], narrow=True), members)
    assert "residual_dropout" not in bucket.shape.agreed
    assert set(bucket.shape.agreed) == {
        *("normalization", "activation", "position_encoding", "attention_dropout")
    }
    states = [member.state() for member in members]
    found = together(bucket, states, vmapped)
    for member, (state, losses) in zip(members, found, strict=True):
        own = extract_state(state, member.config, bucket.shape)
        end, wanted = alone(member, member.state())
        np.testing.assert_allclose(losses, wanted, rtol=1e-5)
        assert_close(own.params, end.params)


# ---- bit for bit ----


def as_wide(shape):
    """A config that fills a shape, with the last of its heads."""
    query, key_value = shape.heads[-1]
    fields = {name: getattr(shape, name) for name in shape.to_dict()}
    del fields["members"], fields["agreed"]
    own = {"num_heads": query, "kv_heads": key_value}
    return ArchitectureConfig(**fields | own).canonical()


@pytest.mark.slow
def test_lanes_one_after_the_other_are_one_lane(family):
    """With all norms, where nothing is padded."""
    shape, members = bucket_of(family)
    gated, whole = shape.gated, as_wide(shape)
    own = [
        member._replace(
            config=dataclasses.replace(
                whole,
                normalization=NORMALIZATIONS[at % 3],
                activation=("geglu" if at % 2 else "swiglu") if gated else "gelu",
                position_encoding=POSITION_ENCODINGS[at % 3],
                attention_dropout=0.1,
                residual_dropout=0.1 * (at % 2),
            )
        )
        for at, member in enumerate(members)
    ]
    states = [member.state() for member in own]
    lanes = together(Bucket(shape, own), states, vmapped=False)
    for lane, state, member in zip(lanes, states, own, strict=True):
        (wanted,) = together(Bucket(shape, [member]), [state], vmapped=False)
        chex.assert_trees_all_close(lane, wanted, **LAST_BITS)


@pytest.mark.slow
def test_members_of_one_config_are_the_trainer():
    config = bucket_of("flash_attention").members[0].config
    members = [
        Training(config, rate, seed) for seed, rate in enumerate((3e-4, 1e-4, 5e-5))
    ]
    states = [member.state() for member in members]
    lanes = together(Bucket(config, members), states, vmapped=False, has_traits=False)
    for lane, member, state in zip(lanes, members, states, strict=True):
        chex.assert_trees_all_close(lane, alone(member, state), **LAST_BITS)


@pytest.mark.slow
def test_in_bfloat16_members_are_near_what_they_are_alone():
    shape, members = bucket_of("transformer")
    bucket = Bucket(shape, [member for member in members if member.seed % 2])
    states = [member.state() for member in bucket.members]
    lanes = together(bucket, states, vmapped=False, dtype=jnp.bfloat16)
    for (end, losses), member, state in zip(lanes, bucket.members, states, strict=True):
        _, wanted = alone(member, state, dtype=jnp.bfloat16)
        np.testing.assert_allclose(losses, wanted, atol=2e-2)
        own = extract_state(end, member.config, shape)
        chex.assert_trees_all_equal(pad_state(own, member.config, shape), end)
