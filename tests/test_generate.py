import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import arch.decoding.loop
from arch import ArchitectureConfig, build_model
from arch.config import POSITION_ENCODINGS
from arch.decoding.generate import bucket, check, generate, position_limit, stream
from arch.decoding.sampling import Sampling
from arch.decoding.unrolled import unstack
from arch.initial import draw_parameters
from arch.mixers import MIXERS

TINY = ArchitectureConfig(
    arch_type="transformer",
    num_layers=2,
    hidden_dim=32,
    num_heads=2,
    ffn_multiplier=2.0,
    normalization="layernorm",
    activation="gelu",
    position_encoding="rope",
    vocab_size=31,
    max_seq_length=64,
)
# As many tokens as their bucket has room for, one, and some.
PROMPTS = [[*range(5, 21)], [3], [7, 7, 2, 9, 0]]
NEW = 12

every_family = pytest.mark.parametrize("family", MIXERS)


@functools.cache
def model_of(config):
    """Parameters whose logits spread, and the same as `generate` takes them."""
    rng = np.random.default_rng(1)

    def enlarge(leaf):
        noise = rng.normal(0, 0.1, leaf.shape).astype(np.float32)
        return jnp.asarray(1.5 * leaf + noise)

    params = draw_parameters(build_model(config), jax.random.key(0))
    params = jax.tree.map(enlarge, params)
    return params, unstack(params)


@functools.cache
def whole_reader(config):
    model = build_model(config)
    return jax.jit(lambda params, tokens: model.apply({"params": params}, tokens))


def logits_after(config, sequence):
    """f32[T, V] of a whole sequence, in a program of one length for all."""
    padded = np.zeros((1, 32), np.int32)
    padded[0, : len(sequence)] = sequence  # nothing sees what stands behind it
    params, _ = model_of(config)
    return np.asarray(whole_reader(config)(params, padded))[0, : len(sequence)]


@pytest.fixture
def traces(monkeypatch):
    """How often the model was traced for a program."""
    counted = chex.assert_max_traces(n=2)(arch.decoding.loop.forward_with_cache)
    calls = []

    def forward_with_cache(*arguments):
        calls.append(None)
        return counted(*arguments)

    chex.clear_trace_counter()
    monkeypatch.setattr(arch.decoding.loop, "forward_with_cache", forward_with_cache)
    return lambda: len(calls)


def run(config, prompts, key=None, max_new=NEW, **options):
    key = jax.random.key(0) if key is None else key
    return generate(
        key, config, model_of(config)[1], prompts, max_new=max_new, **options
    )


# ---- every family ----


@every_family
@pytest.mark.sweep(3)
def test_ragged_prompts_go_on_as_the_whole_model_would(family):
    config = dataclasses.replace(TINY, arch_type=family)
    done = run(config, PROMPTS)
    assert done.lengths.tolist() == [NEW] * 3
    assert len(np.unique(done.tokens)) > 5
    for prompt, drawn in zip(PROMPTS, done.tokens, strict=True):
        logits = logits_after(config, [*prompt, *drawn])
        likeliest = logits[len(prompt) - 1 : -1].argmax(axis=-1)
        np.testing.assert_array_equal(drawn, likeliest)


@pytest.mark.parametrize("family", ["transformer", "rwkv"])
def test_a_prompt_alone_goes_on_as_among_others(family):
    config = dataclasses.replace(TINY, arch_type=family)
    together = run(config, PROMPTS).tokens
    for prompt, drawn in zip(PROMPTS, together, strict=True):
        np.testing.assert_array_equal(run(config, [prompt]).tokens, drawn[None])


@every_family
def test_other_prompts_compile_nothing_new(family, traces):
    config = dataclasses.replace(TINY, arch_type=family)
    for length, new in ((1, 16), (9, 1), (16, 10)):
        prompts = [[length] * length, [2], [3, 4]]
        done = run(config, prompts, max_new=new, stop_tokens=[1, 2][:new])
        assert done.tokens.shape == (3, new)
    assert traces() <= 2  # the prompt's program and the loop; both may be there


def test_other_settings_compile_nothing_new(traces):
    for seed in range(4):
        done = run(
            dataclasses.replace(TINY, vocab_size=29),
            [[seed] * (seed + 1)],
            jax.random.key(seed),
            sampling=Sampling(temperature=0.5 + seed, top_p=0.5 + seed / 20),
            stop_tokens=[25 + seed][: seed % 2],
        )
        assert done.tokens.shape == (1, NEW)
    assert traces() == 2


@every_family
def test_positions_that_end_are_an_error_and_others_go_on(family):
    for position in POSITION_ENCODINGS:
        config = dataclasses.replace(
            TINY, arch_type=family, position_encoding=position, max_seq_length=20
        )
        check(config, [[1], [1] * 8], max_new=12)
        if family in ("mamba", "rwkv") or position == "alibi":
            assert position_limit(config) is None
            check(config, [[1] * 100], max_new=1000)
            continue
        assert position_limit(config) == 20
        message = "a prompt of 9 tokens and max_new=12 are more than max_seq_length=20"
        with pytest.raises(ValueError, match=message):
            run(config, [[1], [1] * 9])


# ---- where it stops ----


def test_a_stop_token_ends_its_row_alone():
    free = run(TINY, PROMPTS)
    stop = int(free.tokens[1, 4])
    firsts = [
        row.tolist().index(stop) + 1 if stop in row else NEW for row in free.tokens
    ]
    assert min(firsts) < NEW
    done = run(TINY, PROMPTS, stop_tokens=[30, stop])
    assert done.lengths.tolist() == firsts
    for row, wanted, length in zip(done.tokens, free.tokens, firsts, strict=True):
        np.testing.assert_array_equal(row[:length], wanted[:length])
        assert not row[length:].any()


def test_nothing_is_computed_once_all_rows_have_ended(monkeypatch):
    free = run(TINY, PROMPTS[1:])
    stops = set(free.tokens[:, 2].tolist())
    last = max(next(i for i, t in enumerate(row) if t in stops) for row in free.tokens)
    counts = []
    original = arch.decoding.generate.decode_loop

    def counted(*arguments):
        after = original(*arguments)
        counts.append(int(after.drawn))
        return after

    monkeypatch.setattr(arch.decoding.generate, "decode_loop", counted)
    run(TINY, PROMPTS[1:], stop_tokens=sorted(stops))
    assert counts == [last + 1]  # the loop itself left off
    counts.clear()
    _, weights = model_of(TINY)
    parts = stream(
        jax.random.key(0),
        TINY,
        weights,
        PROMPTS[1:],
        max_new=NEW,
        stop_tokens=sorted(stops),
        block=1,
    )
    assert len(list(parts)) == last + 1
    assert counts == list(range(2, last + 2))


# ---- streaming and keys ----

LIVELY = Sampling(temperature=1.5, repetition_penalty=1.1)


@pytest.mark.parametrize("block", [1, 5, 100])
def test_a_stream_gives_the_same_tokens(block):
    whole = run(TINY, PROMPTS, jax.random.key(5), sampling=LIVELY, stop_tokens=[4])
    _, weights = model_of(TINY)
    key = jax.random.key(5)
    options = {"max_new": NEW, "sampling": LIVELY, "stop_tokens": [4]}
    parts = list(stream(key, TINY, weights, PROMPTS, block=block, **options))
    assert (parts[0].lengths == 1).all()
    for part in parts:
        for row, length, wanted in zip(*part, whole.tokens, strict=True):
            np.testing.assert_array_equal(row[:length], wanted[:length])
    chex.assert_trees_all_equal(parts[-1], whole)
    longest = int(whole.lengths.max())
    assert [int(part.lengths.max()) for part in parts] == [
        *range(1, longest, block),
        longest,
    ]


def test_the_key_decides_and_rows_do_not_share_it():
    prompts = [PROMPTS[2]] * 3
    first = run(TINY, prompts, jax.random.key(1), sampling=LIVELY).tokens
    again = run(TINY, prompts, jax.random.key(1), sampling=LIVELY).tokens
    other = run(TINY, prompts, jax.random.key(2), sampling=LIVELY).tokens
    np.testing.assert_array_equal(first, again)
    rows = {tuple(row) for row in (*first, *other)}
    assert len(rows) == 6
    # What a row draws depends on its place and its prompt alone.
    mixed = [PROMPTS[2], PROMPTS[0], PROMPTS[2]]
    among = run(TINY, mixed, jax.random.key(1), sampling=LIVELY).tokens
    np.testing.assert_array_equal(among[[0, 2]], first[[0, 2]])


def test_the_loop_draws_from_the_models_distribution():
    config = dataclasses.replace(TINY, vocab_size=5, num_layers=1)
    rows, prompt = 3000, [1, 4]
    done = run(
        config,
        [prompt] * rows,
        max_new=2,
        sampling=Sampling(temperature=1.3),
        stop_tokens=[3],
    )

    def chances(sequence):
        logits = logits_after(config, sequence)[-1].astype(np.float64) / 1.3
        exponentials = np.exp(logits - logits.max())
        return exponentials / exponentials.sum()

    first = chances(prompt)
    statistic = 0.0
    for token in range(5):
        begun = done.tokens[:, 0] == token
        expected = rows * first[token]
        statistic += (begun.sum() - expected) ** 2 / expected
        if token == 3:  # it stops
            assert (done.tokens[begun, 1] == 0).all()
            continue
        after = begun.sum() * chances([*prompt, token])
        counts = np.bincount(done.tokens[begun, 1], minlength=5)
        statistic += ((counts - after) ** 2 / after).sum()
    assert first.max() < 0.8
    assert statistic < stats.chi2.isf(1e-3, 4 + 4 * 4)


PENALTY = Sampling(temperature=0, repetition_penalty=2.5)


def test_the_repetition_penalty_is_for_prompt_and_text():
    done = run(TINY, PROMPTS, sampling=PENALTY)
    assert not np.array_equal(done.tokens, run(TINY, PROMPTS).tokens)
    for prompt, row in zip(PROMPTS, done.tokens, strict=True):
        logits = logits_after(TINY, [*prompt, *row])
        for at in range(NEW):
            scores = logits[len(prompt) + at - 1].copy()
            seen = np.unique([*prompt, *row[:at]])
            worse = np.where(scores < 0, scores * 2.5, scores / 2.5)
            scores[seen] = worse[seen]
            assert scores.argmax() == row[at]


def test_the_repetition_penalty_is_not_for_padding():
    tokens = np.full((2, 16), 30, np.int32)  # 30 is the padding
    tokens[0, :3] = 1, 2, 1
    tokens[1, :1] = 9
    lengths = np.asarray([3, 1], np.int32)
    settings = (PENALTY.knobs(), jnp.full(16, -1))
    _, weights = model_of(TINY)
    key = jax.random.key(0)
    progress = arch.decoding.loop.start(
        TINY, jnp.float32, 16, weights, settings, key, tokens, lengths
    )
    drawn = progress.tokens[:, 0].tolist()
    assert 30 not in drawn
    marked = [set(np.flatnonzero(row).tolist()) for row in progress.seen]
    assert marked == [{1, 2, drawn[0]}, {9, drawn[1]}]


# ---- input ----


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([], {}, "at least one token"),
        ([[1], []], {}, "at least one token"),
        ([[1, 31]], {}, "prompt token 31 is not in 0 to 30"),
        ([[-1]], {}, "prompt token -1 is not in 0 to 30"),
        ([[1]], {"stop_tokens": [99]}, "stop token 99 is not in 0 to 30"),
        ([[1]], {"max_new": 0}, "max_new=0 must be at least 1"),
    ],
)
def test_input_that_means_nothing_is_named(prompts, options, message):
    with pytest.raises(ValueError, match=message):
        run(TINY, prompts, **options)
    _, weights = model_of(TINY)
    with pytest.raises(ValueError, match="block=0 must be at least 1"):
        next(stream(jax.random.key(0), TINY, weights, [[1]], max_new=3, block=0))


def test_buckets_are_few_and_hold_what_they_should():
    sizes = [bucket(n) for n in range(4097)]
    assert all(size >= n for n, size in enumerate(sizes))
    assert all(size <= 1.5 * n for n, size in enumerate(sizes) if n > 16)
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 17
