"""What a winner gains over others on the same windows, and what is said of it."""

import io

import numpy as np
import pytest
from rich.console import Console

from jaxnas.errors import UsageError
from jaxnas.pipeline.obvious import llama_like
from jaxnas.report.quality import show_quality
from jaxnas.results import summary
from jaxnas.results.gain import best_gain, split_gain
from jaxnas.training.scoring import WindowSums

MODEL = llama_like(64, vocab_size=300, max_seq_length=16)


def sums(rng, windows=400, worse=0.0):
    """Some windows are harder than others, for every model."""
    hard = np.random.default_rng(0).uniform(20, 90, windows)
    nats = hard + worse + rng.normal(0, 2, windows)
    return WindowSums(16, nats, np.full(windows, 4.0), 20 + hard / 2)


def test_the_gain_is_the_difference_of_bits_per_byte():
    rng = np.random.default_rng(1)
    winner, other = sums(rng), sums(rng, worse=1.5)
    found = split_gain(winner, other)
    bits = [one.metrics().bits_per_byte for one in (winner, other)]
    assert found["bits_per_byte"] == pytest.approx(bits[1] - bits[0], rel=1e-12)
    back = split_gain(other, winner)
    assert back["bits_per_byte"] == -found["bits_per_byte"]
    assert back["standard_error"] == pytest.approx(found["standard_error"], rel=1e-12)
    assert split_gain(winner, winner)["standard_error"] == 0


def test_its_standard_error_is_that_of_the_windows_drawn_again():
    rng = np.random.default_rng(2)
    winner, other = sums(rng), sums(rng, worse=1.5)
    drawn = []
    for _ in range(2000):
        at = rng.integers(0, 400, 400)
        again = [
            WindowSums(16, one.nats[at], one.hits[at], one.bytes[at])
            for one in (winner, other)
        ]
        drawn.append(split_gain(*again)["bits_per_byte"])
    found = split_gain(winner, other)
    assert found["standard_error"] == pytest.approx(np.std(drawn), rel=0.05)
    # Paired: far below the error of either alone.
    alone = np.std(winner.nats / winner.bytes) / np.log(2) / 20
    assert found["standard_error"] < alone
    one = [WindowSums(16, *(column[:1] for column in of[1:])) for of in (winner, other)]
    assert split_gain(*one)["standard_error"] is None


def test_it_is_the_gain_over_the_best_on_validation():
    rng = np.random.default_rng(3)
    winner = {"validation": sums(rng), "test": sums(rng)}
    good = {"validation": sums(rng, worse=1), "test": sums(rng, worse=9)}
    bad = {"validation": sums(rng, worse=2), "test": sums(rng, worse=1)}
    found = best_gain(winner, [bad, {}, good])
    assert found["over"] == 2
    assert found["splits"]["test"] == split_gain(winner["test"], good["test"])
    assert best_gain(winner, [{}, {}]) is None
    assert best_gain(winner, []) is None


def final(winner, obvious=2.0, error=0.01, steps=50, **ngrams):
    metrics = lambda bits: {"bits_per_byte": bits, "accuracy": 0.25}
    splits = {
        split: {
            "windows": 9,
            "winner": metrics(winner),
            "unigram": metrics(ngrams.get("unigram", 3.0)),
            "bigram": metrics(ngrams.get("bigram", 2.5)),
        }
        for split in ("validation", "test")
    }
    gain = {
        "bits_per_byte": obvious - winner,
        "standard_error": error,
        "windows": 9,
    }
    return {
        "steps": 40,
        "reason": None,
        "splits": splits,
        "baseline": [
            {
                "config": MODEL.to_dict(),
                "steps": steps,
                "planned": 50,
                "reason": None,
                "splits": {split: metrics(obvious) for split in splits},
            }
        ],
        "gain": {"over": 0, "splits": dict.fromkeys(splits, gain)},
    }


def said(found):
    console = Console(file=io.StringIO(), width=200)
    show_quality(found, console)
    return console.file.getvalue().splitlines()


def test_a_gain_is_said_with_its_error_and_no_warning():
    lines = said(final(1.875))
    [line] = [line for line in lines if line.startswith("gain")]
    assert "over the obvious model L2 H64: +0.1250 bits/byte on validation" in line
    assert line.count("(standard error 0.0100, 9 windows)") == 2
    assert not any("warning" in line for line in lines)
    rows = [
        line for line in lines if "obvious model L2 H64 " in line and "2.000" in line
    ]
    assert [row.split()[0] for row in rows] == ["validation", "test"]


def test_other_steps_are_said():
    [line] = [line for line in said(final(1.5, steps=30)) if line.startswith("gain")]
    assert "of the winner (50 steps) over the obvious model L2 H64 (30 steps):" in line


@pytest.mark.parametrize(
    ("figures", "rivals"),
    [
        ({"winner": 2.25}, ["obvious model L2 H64"]),
        ({"winner": 1.5, "bigram": 1.25}, ["token bigram"]),
        ({"winner": 4.0}, ["token unigram", "token bigram", "obvious model L2 H64"]),
        ({"winner": 2.25, "steps": 30}, ["obvious model L2 H64 (30 steps)"]),
        ({"winner": 2.25, "steps": 60}, ["obvious model L2 H64 (60 steps)"]),
    ],
)
def test_a_line_warns_of_each_that_the_winner_loses_to(figures, rivals):
    lines = [line for line in said(final(**figures)) if line.startswith("warning")]
    assert len(lines) == len(rivals)
    for line, rival in zip(lines, rivals, strict=True):
        assert f"loses to the {rival} on test: {figures['winner']:.3f}" in line


@pytest.mark.parametrize("part", ["splits", "gain"])
def test_a_summary_without_one_split_is_damaged(tmp_path, monkeypatch, part):
    found = final(1.5)
    monkeypatch.setattr(summary, "read_kept", lambda path, kind: {"final": found})
    assert summary.read_summary(tmp_path)["final"] is found
    scores = found["splits"] if part == "splits" else found["gain"]["splits"]
    scores["other"] = scores.pop("test")
    with pytest.raises(UsageError, match="damaged: no scores of test"):
        summary.read_summary(tmp_path)


def test_without_obvious_models_the_rest_is_shown():
    found = final(2.0)
    older = {name: found[name] for name in ("steps", "reason", "splits")}
    none = older | {"baseline": [], "gain": None}
    assert said(older) == said(none)
    assert not any("obvious" in line or "gain" in line for line in said(none))
    found["baseline"][0] |= {"reason": "TrainingFailed: nan", "splits": {}}
    lines = said(found | {"gain": None})
    assert any(
        "unknown over the obvious model L2 H64: TrainingFailed: nan" in line
        for line in lines
    )
