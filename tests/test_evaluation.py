import dataclasses
import functools
import itertools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from corpus import write_corpus
from tasks import evaluator_with

from arch import ArchitectureConfig, build_model, cost
from arch.config import QUANTIZATIONS
from arch.families import FAMILIES
from jaxnas.api import make_config_evaluator
from jaxnas.compress import prune, round_weights
from jaxnas.config import RunConfig
from jaxnas.data import Dataset, train_tokenizer, windows
from jaxnas.evaluation.costs import costs_of
from jaxnas.evaluation.fitness import FitnessSettings, fitness_of
from jaxnas.evaluation.training_log import Training, TrainingLog
from jaxnas.population import compiler as compiler_module
from jaxnas.population.lanes import Running
from jaxnas.population.observer import Observer
from jaxnas.population.program import Compiled
from jaxnas.storage.jsonl import Lines
from jaxnas.training.keys import training_key
from jaxnas.training.lengths import PhaseLength
from jaxnas.training.rungs import rungs_of
from jaxnas.training.scoring import Compression, Metrics, score
from jaxnas.training.settings import TrainSettings
from jaxnas.training.single import TrainingFailed, train, training_config
from jaxnas.training.task import Task

VOCAB, USED = 257, 16
CONFIG = ArchitectureConfig(
    arch_type="transformer",
    num_layers=1,
    hidden_dim=32,
    num_heads=2,
    ffn_multiplier=2.0,
    normalization="rmsnorm",
    activation="swiglu",
    position_encoding="rope",
    vocab_size=VOCAB,
    max_seq_length=16,
)
SETTINGS = TrainSettings(window=16, batch=8, learning_rate=2e-2)
PHASE = PhaseLength(samples=960, epochs=2)
SHORT = PhaseLength(samples=16, epochs=1)
HARDWARE = cost.HARDWARE["cpu-core"]
FITNESS = FitnessSettings(size_target=0.01, size_limit=1.0, latency_target=0.001)
COMPRESSIONS = [Compression(q, p) for q in QUANTIZATIONS for p in (0.0, 0.6)]


def stream(length, seed):
    """Tokens that mostly follow from the two before, by a random table."""
    table = np.random.default_rng(0).integers(0, USED, (USED, USED))
    rng = np.random.default_rng(seed)
    noise, noisy = rng.integers(0, USED, length), rng.random(length) < 0.1
    tokens = noise[:2].tolist()
    for place in range(2, length):
        follower = table[tokens[-2], tokens[-1]]
        tokens.append(int(noise[place] if noisy[place] else follower))
    return np.asarray(tokens, np.uint16) + 60


@functools.cache
def dataset():
    sizes = np.random.default_rng(7).integers(1, 9, VOCAB, dtype=np.int32)
    return Dataset(
        spec="stream",
        corpus_hash="",
        train=stream(8000, 1),
        validation=stream(8000, 2),
        test=stream(1500, 3),
        token_bytes=sizes,
        tokenizer=train_tokenizer(["ab"], VOCAB),
        vocab_size=VOCAB,
        statistics={},
    )


def task_of(**changes):
    parts = {"settings": SETTINGS, "seed": 0, "dtype": jnp.float32}
    parts["dataset"] = dataset()
    return Task(**parts | changes)


def evaluator_of(task=None, **changes):
    parts = {
        "task": task_of() if task is None else task,
        "rungs": rungs_of({"fast": SHORT}, SETTINGS),
        "hardware": HARDWARE,
        "fitness": FITNESS,
        "max_size": 500.0,
        "eval_windows": 13,
    }
    return evaluator_with(**parts | changes)


def compressed(compression):
    return dataclasses.replace(CONFIG, **compression._asdict())


def reopened(lines):
    """The file's lines as another process finds them."""
    found = Lines(lines.path)
    found.close()
    return found


@pytest.fixture(scope="module")
def learned():
    """A task, and weights that have learnt something of it."""
    task = task_of()
    params, curve = train(CONFIG, task, PHASE)
    assert curve[-20:].mean() < 0.5 * curve[0]
    return task, params


@pytest.fixture
def calls(monkeypatch):
    """The configs that were trained, in their order."""
    trained, begin = [], Running.__init__

    def counted(self, group, *rest, **named):
        trained.extend(group.configs)
        begin(self, group, *rest, **named)

    monkeypatch.setattr(Running, "__init__", counted)
    return trained


@pytest.fixture
def uncompiled(monkeypatch):
    """Nothing is compiled: for tests that replace what would be run."""
    nothing = Compiled(train=lambda *_: None, score=lambda *_: None, memory=0)
    monkeypatch.setattr(compiler_module, "compile_program", lambda *_: nothing)


@functools.partial(jax.jit, static_argnums=0)
def apply(config, params, tokens):
    return build_model(config).apply({"params": params}, tokens)


def by_hand(logits, targets, sizes):
    """Metrics in double precision, from logits."""
    logits = np.asarray(logits, np.float64)
    log = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    nats = -np.take_along_axis(log, targets[..., None], -1).sum()
    return Metrics(
        accuracy=float(np.mean(logits.argmax(-1) == targets)),
        loss=nats / targets.size,
        perplexity=math.exp(nats / targets.size),
        bits_per_byte=nats / math.log(2) / sizes[targets].sum(),
    )


@pytest.mark.parametrize("number", [8, 13])
@pytest.mark.sweep(2)
def test_score_is_that_of_the_exported_model(learned, number):
    task, params = learned
    chosen = windows(task.dataset.validation, number, SETTINGS.window)
    found = score(CONFIG, task, params, chosen, COMPRESSIONS)
    assert len(found) == len(COMPRESSIONS)
    for compression, metrics in zip(COMPRESSIONS, found, strict=True):
        config, weights = prune(compressed(compression), params)
        config = dataclasses.replace(config, quantization="fp16")
        index = QUANTIZATIONS.index(compression.quantization)
        weights = round_weights(weights, index)
        logits = apply(config, weights, chosen[:, :-1])
        wanted = by_hand(logits, chosen[:, 1:], task.dataset.token_bytes)
        assert metrics.accuracy == wanted.accuracy
        for name in ("loss", "perplexity", "bits_per_byte"):
            got = getattr(metrics, name)
            assert type(got) is float
            assert got == pytest.approx(getattr(wanted, name), rel=1e-5)


def test_accuracy_is_measured_after_compression(learned):
    task, params = learned
    chosen = windows(task.dataset.validation, 470, SETTINGS.window)
    scored = score(CONFIG, task, params, chosen, COMPRESSIONS)
    found = dict(zip(COMPRESSIONS, scored, strict=True))
    plain = found["fp16", 0.0]
    assert plain.accuracy > 0.7  # one in 16 by chance
    for compression in (("int4", 0.0), ("fp16", 0.6), ("int4", 0.6)):
        assert found[compression].accuracy < plain.accuracy
        assert found[compression].loss > plain.loss + 0.005
        assert found[compression].bits_per_byte > plain.bits_per_byte
    assert found["fp16", 0.6].accuracy < plain.accuracy - 0.02
    losses = [found[name, 0.0].loss for name in QUANTIZATIONS]
    assert len(set(losses)) == 3
    # int8 is nearly free, int4 is not.
    assert abs(losses[1] - losses[0]) < 0.2 * (losses[2] - losses[0])


def test_weights_that_are_not_finite_have_no_metrics(learned):
    task, params = learned
    broken = jax.tree.map(lambda x: x * jnp.nan, params)
    chosen = windows(task.dataset.validation, 8, SETTINGS.window)
    assert score(CONFIG, task, broken, chosen, COMPRESSIONS[:1]) == [None]


def test_a_compression_that_is_not_finite_fails_alone(monkeypatch):
    """The other compressions of the same training keep their metrics."""

    pair = [Compression("fp16", 0.0), Compression("int4", 0.0)]
    run_score = Running.score

    def half_broken(*arguments):
        return [found | {pair[1]: None} for found in run_score(*arguments)]

    monkeypatch.setattr(Running, "score", half_broken)
    evaluator = evaluator_of(compressions=pair)
    assert evaluator(compressed(pair[0])).status == "ok"
    failed = evaluator(compressed(pair[1]))
    assert failed.status == "failed"
    assert failed.reason == "the validation loss is not finite"
    assert len(evaluator.trainings) == 1


def test_an_evaluation_is_costs_metrics_objectives_and_fitness():
    evaluator = evaluator_of()
    config = compressed(Compression("int8", 0.6))
    found = evaluator(config)
    assert (found.status, found.reason) == ("ok", None)
    assert found.costs == costs_of(config, HARDWARE)
    assert dataclasses.asdict(found.costs) == {
        "parameters": cost.parameters(config),
        "stored_parameters": cost.stored_parameters(config),
        "size_mib": cost.size_mib(config),
        "forward_flops": cost.forward_flops(config),
        "latency_ms": cost.latency_ms(config, HARDWARE),
    }
    params, _ = train(config, evaluator.task, SHORT)
    chosen = windows(evaluator.task.dataset.validation, 13, 16)
    np.testing.assert_array_equal(evaluator.trainer.validation_windows(), chosen)
    asked = [Compression("int8", 0.6)]
    assert found.metrics == score(config, evaluator.task, params, chosen, asked)[0]
    size, latency = found.costs.size_mib, found.costs.latency_ms
    assert found.objectives == [1 - found.metrics.accuracy, size, latency]
    assert found.fitness == fitness_of(found.objectives, FITNESS)
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()


def test_evaluating_twice_is_the_same_to_the_bit():
    first, second = evaluator_of()(CONFIG), evaluator_of()(CONFIG)
    assert first == second
    assert first.metrics.loss.hex() == second.metrics.loss.hex()
    other = evaluator_of(task_of(seed=1))(CONFIG)
    assert other.metrics.loss != first.metrics.loss


def test_configs_that_differ_in_compression_share_a_training(calls):
    told = []
    shared = evaluator_of(
        compressions=COMPRESSIONS,
        observer=Observer(trained=lambda *given: told.append(given)),
    )
    found = [shared(compressed(compression)) for compression in COMPRESSIONS]
    assert calls == [training_config(CONFIG)]
    assert len(shared.trainings) == 1
    config, params, fitness, _ = told[0]
    asked = compressed(COMPRESSIONS[0])
    assert (len(told), config, fitness) == (1, asked, found[0].fitness)
    assert cost.parameters(config) == sum(x.size for x in jax.tree.leaves(params))
    assert len({one.costs.size_mib for one in found}) == len(COMPRESSIONS)
    for number in (1, 4):  # as each would have been alone
        assert evaluator_of()(compressed(COMPRESSIONS[number])) == found[number]


def test_a_batch_is_judged_as_each_would_be_alone(calls):
    """Equal trainings once, skipped ones not at all, answers in the order asked."""
    wide = dataclasses.replace(CONFIG, hidden_dim=64, vocab_size=2000)
    asked = [wide, *map(compressed, COMPRESSIONS[:3]), CONFIG]
    limit = cost.size_mib(wide) * 0.99
    told = {}
    shared = evaluator_of(
        compressions=COMPRESSIONS,
        max_size=limit,
        observer=Observer(
            trained=lambda one, _, fitness, __: told.update({one: fitness})
        ),
    )
    evaluations = shared.evaluate(asked)
    found = [evaluations[config] for config in asked]
    # The weights are offered for each that they serve: the best may be any of them.
    served = dict(zip(asked[1:], found[1:], strict=True))
    assert told == {one: evaluation.fitness for one, evaluation in served.items()}
    assert [one.status for one in found] == ["skipped", *["ok"] * 4]
    assert calls == [training_config(CONFIG)]
    assert found[1:] == [shared(config) for config in asked[1:]]
    assert len(calls) == 1
    assert evaluator_of().evaluate([]) == {}


@pytest.mark.slow
def test_once_it_is_enough_nothing_is_trained_and_all_that_is_known_counts(calls):
    others = [dataclasses.replace(CONFIG, num_layers=number) for number in (3, 4)]
    asked = [others[0], CONFIG, others[1]]
    shared = evaluator_of()
    told = []

    def enough(succeeded):
        told.append(succeeded)
        return succeeded > 0

    found = shared.evaluate(asked, enough=enough)
    assert told[0] == 0  # before the first training,
    assert told == sorted(told)  # while it goes on,
    assert told[-1] == 1  # and after it
    assert len(shared.trainings) == 1
    assert len(found) == 1
    trained = len(calls)
    assert shared.evaluate(asked, enough=enough) == found
    assert len(calls) == trained


def test_a_compression_that_was_not_predicted_is_scored_all_the_same(calls, tmp_path):
    lines = Lines(tmp_path / "trainings")
    one = evaluator_of(trainings=TrainingLog(lines))
    found = [one(compressed(compression)) for compression in COMPRESSIONS]
    assert len(calls) == len(COMPRESSIONS)  # the weights were not kept
    assert len(one.trainings) == 1
    again = [one(compressed(compression)) for compression in COMPRESSIONS]
    assert again == found
    assert len(calls) == len(COMPRESSIONS)
    lines.close()
    kept = TrainingLog(reopened(lines))
    assert kept.find(CONFIG) == one.trainings.find(CONFIG)
    shared = evaluator_of(compressions=COMPRESSIONS)
    assert found == [shared(compressed(compression)) for compression in COMPRESSIONS]


@pytest.mark.parametrize(
    ("tokens", "trained"),
    [(16, "transformer"), (128, "transformer"), (129, "flash_attention")],
)
def test_dense_and_flash_attention_without_dropout_train_alike(tokens, trained):
    dense = dataclasses.replace(CONFIG, max_seq_length=tokens)
    flash = dataclasses.replace(dense, arch_type="flash_attention")
    assert training_key(flash) == training_key(dense)
    # In less time, or where sequences are long in less memory.
    assert training_config(dense).arch_type == trained
    assert training_config(flash) == training_config(dense)


def test_attention_dropout_is_what_flash_attention_lacks():
    flash = dataclasses.replace(CONFIG, arch_type="flash_attention")
    # It has no probabilities to drop: the field says nothing.
    dropping = dataclasses.replace(flash, attention_dropout=0.2)
    assert training_key(dropping) == training_key(CONFIG)
    long = dataclasses.replace(CONFIG, attention_dropout=0.2, max_seq_length=2048)
    assert training_config(long).arch_type == "transformer"
    dense = dataclasses.replace(CONFIG, attention_dropout=0.2)
    assert training_key(dense) != training_key(CONFIG)


def test_what_trains_alike_shares_a_key():
    for compression in COMPRESSIONS:
        assert training_key(compressed(compression)) == training_key(CONFIG)
    repeated = dataclasses.replace(CONFIG, ffn_dim=64)  # 2 x 32 all the same
    assert training_key(repeated) == training_key(CONFIG)


def test_everything_else_separates_keys():
    others = {
        "num_layers": 2,
        "hidden_dim": 64,
        "num_heads": 4,
        "attention_dim": 16,
        "ffn_multiplier": 4.0,
        "ffn_dim": 65,
        "normalization": "layernorm",
        "activation": "geglu",
        "position_encoding": "alibi",
        "attention_dropout": 0.1,
        "residual_dropout": 0.2,
        "vocab_size": 258,
        "max_seq_length": 32,
        "tie_embeddings": True,
        "norm_epsilon": 1e-6,
        "rope_theta": 5e5,
        "rope_scaling": 2.0,
        "qkv_bias": True,
        "biases": True,
        "tanh_gelu": True,
        "learned_positions": True,
        "sliding_window": 8,
        "rotary_dim": 2,
        "parallel_residual": True,
        "shared_norm": True,
        "head_bias": True,
    }
    fields = {field.name for field in dataclasses.fields(CONFIG)}
    of_others = {"kv_heads", "inner_dim"}
    compression = {"quantization", "pruning_ratio"}
    assert fields - set(others) == {"arch_type"} | of_others | compression
    configs = [CONFIG]
    needed = {"shared_norm": {"parallel_residual": True}}
    configs += [
        dataclasses.replace(CONFIG, **{name: value, **needed.get(name, {})})
        for name, value in others.items()
    ]
    families = set(FAMILIES) - {"transformer", "flash_attention"}
    configs += [dataclasses.replace(CONFIG, arch_type=name) for name in families]
    grouped = dataclasses.replace(CONFIG, arch_type="grouped_query_attention")
    configs.append(dataclasses.replace(grouped, kv_heads=grouped.num_heads))
    mamba = dataclasses.replace(CONFIG, arch_type="mamba")
    configs.append(dataclasses.replace(mamba, inner_dim=32))
    for one, other in itertools.combinations(configs, 2):
        assert training_key(one) != training_key(other), (one, other)


def test_a_model_over_max_size_is_skipped_untrained(calls):
    size = cost.size_mib(CONFIG)
    evaluator = evaluator_of(max_size=size * 0.99)
    found = evaluator(CONFIG)
    assert (found.status, found.costs) == ("skipped", costs_of(CONFIG, HARDWARE))
    assert found.reason == f"{size:.1f} MiB is over max_size={size * 0.99}"
    assert (found.metrics, found.objectives, found.fitness) == (None, None, None)
    assert calls == []
    assert len(evaluator.trainings) == 0
    # It is the exported size that counts.
    assert evaluator(compressed(Compression("int4", 0.0))).status == "ok"
    assert evaluator_of(max_size=size)(CONFIG).status == "ok"


OUT_OF_MEMORY = jax.errors.JaxRuntimeError(
    "RESOURCE_EXHAUSTED: Out of memory allocating 8796093022208 bytes.\n"
    "BufferAssignment stats:\n  parameter allocation: 1.00TiB"
)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            OUT_OF_MEMORY,
            "JaxRuntimeError: RESOURCE_EXHAUSTED: Out of memory allocating "
            "8796093022208 bytes.",
        ),
        (
            TrainingFailed("the training loss is nan at step 3"),
            "TrainingFailed: the training loss is nan at step 3",
        ),
        (ValueError("\n first\nsecond"), "ValueError: first"),
        (MemoryError(), "MemoryError: "),
        (RuntimeError("x" * 1000), "RuntimeError: " + "x" * 300),
    ],
    ids=lambda x: type(x).__name__,
)
@pytest.mark.parametrize("where", ["advance", "score"])
@pytest.mark.usefixtures("uncompiled")
def test_a_failure_is_a_result(monkeypatch, tmp_path, error, reason, where):
    raised = []

    def fail(*_, **__):
        raised.append(error)
        raise error

    def trained(self, train, starts):
        return np.zeros((len(self.group.configs), len(starts)))

    monkeypatch.setattr(Running, "advance", trained)
    monkeypatch.setattr(Running, where, fail)
    lines, told = Lines(tmp_path / "trainings"), []
    evaluator = evaluator_of(
        trainings=TrainingLog(lines),
        observer=Observer(trained=lambda *_: told.append(1)),
    )
    found = evaluator(CONFIG)
    assert (found.status, found.reason) == ("failed", reason)
    assert found.costs == costs_of(CONFIG, HARDWARE)
    assert (found.metrics, found.objectives, found.fitness) == (None, None, None)
    assert told == []
    # Remembered: neither it nor what trains alike is tried again.
    assert evaluator(CONFIG) == found
    assert evaluator(compressed(Compression("int4", 0.6))).reason == reason
    assert len(raised) == 1
    lines.close()
    again = TrainingLog(reopened(lines))
    assert evaluator_of(trainings=again)(CONFIG) == found
    assert len(raised) == 1


def test_a_training_that_diverges_is_a_result():
    wild = dataclasses.replace(SETTINGS, learning_rate=3e37)
    rungs = rungs_of({"fast": PhaseLength(samples=80, epochs=1)}, wild)
    found = evaluator_of(task_of(settings=wild), rungs=rungs)(CONFIG)
    assert found.status == "failed"
    assert found.reason.startswith("TrainingFailed: the training loss is ")
    assert "\n" not in found.reason


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
@pytest.mark.usefixtures("uncompiled")
def test_an_interrupt_is_no_result(monkeypatch, stop):
    def interrupt(*_, **__):
        raise stop

    monkeypatch.setattr(Running, "advance", interrupt)
    evaluator = evaluator_of()
    with pytest.raises(stop):
        evaluator(CONFIG)
    assert len(evaluator.trainings) == 0


def test_trainings_are_read_back_to_the_bit(tmp_path):
    lines = Lines(tmp_path / "trainings")
    metrics = {
        compression: Metrics(
            accuracy=number / 7,
            loss=math.pi * 10**number,
            perplexity=math.exp(700),
            bits_per_byte=5e-324,
        )
        for number, compression in enumerate(COMPRESSIONS)
    }
    other = dataclasses.replace(CONFIG, num_layers=2)
    done = Training(key=training_key(CONFIG), metrics=metrics)
    failed = Training(key=training_key(other), metrics={}, reason="é: \u2028 it broke")
    first = TrainingLog(lines)
    for training in (done, failed):
        first.add(training)
    lines.close()
    for _ in range(2):  # reading changes nothing
        lines = reopened(lines)
        for read in (TrainingLog(lines), TrainingLog(lines)):
            assert (read.find(CONFIG), read.find(other)) == (done, failed)
            assert read.find(dataclasses.replace(CONFIG, num_layers=3)) is None
            assert len(read) == 2


def test_a_model_without_room_for_the_data_is_refused(calls):
    small = dataclasses.replace(CONFIG, vocab_size=VOCAB - 1)
    with pytest.raises(ValueError, match=r"vocab_size=256 is less than .* 257"):
        evaluator_of()(small)
    short = dataclasses.replace(CONFIG, max_seq_length=SETTINGS.window - 1)
    with pytest.raises(ValueError, match=r"max_seq_length=15 .* window of 16"):
        evaluator_of()(short)
    assert calls == []
    larger = dataclasses.replace(CONFIG, vocab_size=VOCAB + 3)
    assert evaluator_of()(larger).status == "ok"


def test_a_named_model_is_trained_whatever_a_search_would_leave_out(tmp_path):
    """The default space has limits of a MiB and a few milliseconds."""
    data = f"folder:{write_corpus(tmp_path / 'code')}"
    large = dataclasses.replace(CONFIG, hidden_dim=256, num_layers=12)
    given = RunConfig(data=data, vocab_size=300, window=16, batch=4)
    assert cost.size_mib(large) > 4
    assert make_config_evaluator(given).fits(large)
    limited = dataclasses.replace(given, max_size=2.0)
    assert not make_config_evaluator(limited).fits(large)
