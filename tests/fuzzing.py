"""Input with mistakes in it, and how a command has to end on it.

JAXNAS_FUZZ=N tries N of each kind, the same ones each time; with JAXNAS_FUZZ_OTHERS=1
other ones each time.
"""

import contextlib
import copy
import io
import json
import os
import resource
import time

import hypothesis
from hypothesis import strategies as st

from jaxnas.run import main

SECONDS = 20.0  # of one command, of processor time
MEMORY = 1.5 * 2**30  # bytes that one command may add to the most there ever was
NUMBER = int(os.environ.get("JAXNAS_FUZZ", 0))
OTHERS = bool(os.environ.get("JAXNAS_FUZZ_OTHERS"))

# What stands where something else should.
ODD = (
    *(None, True, False, 0, 1, -1, 2, 1.5, -0.0, 1e-300, 1e300, 10**30, 10**400),
    *(2**31, 2**32 - 1, 2**53, 2**63, -(2**63), float("nan"), float("inf")),
    *("", "x", "0", "nan", "a\0b", "\ud800", "\x1b[31m[red]", "../../x", "/dev/zero"),
    *("ü" * 300, "9" * 5000, "x\ny", [], {}, [[]], [0], ["x"], {"x": 0}, [1e9, -1]),
)
TEXTS = ("[" * 20_000, "{" * 20_000, '{"a":' * 20_000, "9" * 5_000, "\0", "\ufeff")


def fuzz(few, costly=1):
    """Settings of a test of so many examples.

    Of NUMBER, where it is given, one in `costly` is tried, which takes longer.
    """
    return hypothesis.settings(
        max_examples=NUMBER // costly or few,
        derandomize=not OTHERS,
        database=None,
        deadline=None,  # `ended` bounds the time
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],  # a command takes too long to shrink
    )


def places(value, here=()):
    """The paths to everything in a JSON value, itself among them."""
    yield here
    if isinstance(value, dict | list):
        inside = value.items() if isinstance(value, dict) else enumerate(value)
        for key, one in inside:
            yield from places(one, (*here, key))


def _inside(value, path):
    for key in path:
        value = value[key]
    return value


@st.composite
def mutated(draw, value, most=3):
    """A JSON value with a few things put, scaled, left out, moved or misspelt."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, most))):
        path = draw(st.sampled_from(list(places(value))))
        if not path:
            continue
        *above, key = path
        parent = _inside(value, above)
        kind = draw(st.sampled_from(["odd", "scale", "drop", "move", "name", "nest"]))
        if kind == "odd":
            parent[key] = copy.deepcopy(draw(st.sampled_from(ODD)))
        elif kind == "scale":
            number = parent[key]
            if isinstance(number, int | float) and abs(number) < 1e30:
                by = draw(st.sampled_from([-1, 0, 0.5, 2, 1000, 10**9, 1e-9]))
                parent[key] = number * by
        elif kind == "drop":
            del parent[key]
        elif kind == "move":
            other = draw(st.sampled_from(list(places(value))))
            parent[key] = copy.deepcopy(_inside(value, other))
        elif kind == "name" and isinstance(parent, dict):
            parent[draw(st.text(max_size=4))] = parent.pop(key)
        elif kind == "nest":
            parent[key] = [parent[key]]
    return value


@st.composite
def json_text(draw, value):
    """A mutated value as JSON; once in a while the text itself is spoilt."""
    text = json.dumps(draw(mutated(value)))
    if draw(st.integers(0, 7)) == 0:
        place = draw(st.integers(0, len(text)))
        text = text[:place] + draw(st.sampled_from(TEXTS)) + text[place:]
    return text.encode("utf-8", "surrogatepass")


@st.composite
def spoilt(draw, raw, begin=0):
    """Bytes with a few of them, from `begin` on, changed, cut, put or repeated."""
    raw = bytearray(raw)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(min(begin, len(raw)), len(raw)))
        piece = draw(
            st.sampled_from([b"", b"\0", b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\1" * 4])
            | st.binary(max_size=9)
        )
        kind = draw(st.sampled_from(["put", "insert", "cut", "end"]))
        if kind == "put":
            raw[place : place + len(piece)] = piece
        elif kind == "insert":
            raw[place:place] = piece
        elif kind == "cut":
            del raw[place : place + draw(st.integers(1, 64))]
        else:
            del raw[place:]
    return bytes(raw)


@st.composite
def mutated_toml(draw, text, words):
    """Lines of settings replaced by words, dropped, repeated, misspelt or scaled."""
    lines = text.splitlines()
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(lines) - 1))
        kind = draw(st.sampled_from(["value", "value", "drop", "copy", "letter"]))
        if kind == "value" and "=" in lines[at]:
            word = draw(st.sampled_from(words))
            lines[at] = f"{lines[at].split('=')[0]}= {word}"
        elif kind == "drop" and len(lines) > 1:
            lines.pop(at)
        elif kind == "copy":
            lines.insert(at, draw(st.sampled_from(lines)))
        elif kind == "letter" and lines[at]:
            place = draw(st.integers(0, len(lines[at]) - 1))
            letter = draw(st.characters(codec="utf-8"))
            lines[at] = lines[at][:place] + letter + lines[at][place + 1 :]
    return "\n".join(lines)


WORST = {}  # of each kind: examples that ended in 0, 1 and 2, seconds, bytes


def ended(kind, arguments):
    """The exit code of a command, which says why in one line if it is not 0."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    begin, before = time.process_time(), _peak()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(one) for one in arguments])
        except SystemExit as left:  # as argparse ends
            code = left.code
    seconds, memory = time.process_time() - begin, _peak() - before
    assert code in (0, 1, 2), code
    codes, slowest, largest = WORST.get(kind, ((0, 0, 0), 0.0, 0))
    codes = tuple(number + (code == at) for at, number in enumerate(codes))
    WORST[kind] = codes, max(slowest, seconds), max(largest, memory)
    said = err.getvalue().strip()
    assert len(said.split("\n")) == 1, said
    assert said or code == 0, code
    assert len(said) < 3000, len(said)
    assert seconds < SECONDS, seconds
    assert memory < MEMORY, memory
    return code


def _peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
