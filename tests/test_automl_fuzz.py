"""Specs with mistakes in them: exit 0 or 2, one line, little time."""

import random
import re
import time

import pytest

from jaxnas.automl.spec import SPECS
from jaxnas.run import main

WORDS = (
    *('"12 ms"', '"8B"', '"24 GB"', '"half"', '"x"', '""', '"\\n"', "true", "nan"),
    *(
        "-1",
        "0",
        "1.5",
        "inf",
        "1e308",
        "1e-308",
        "1" + 30 * "0",
        "9223372036854775807",
    ),
    *("[]", "[1,2]", "[64,128]", "[[1]]", '[1, "a"]', "{}", "{min=1}", "{max=1e9}"),
    *("{min=1,max=100000000,step=1}", "{min = 64, max = 4096, step = 1}"),
)


def mutated(rng, text):
    """One to three lines replaced, dropped, moved, misspelt or scaled."""
    lines = text.splitlines()
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(lines))
        kind = rng.choice(["value", "drop", "copy", "letter", "scale"])
        if kind == "value" and "=" in lines[at]:
            lines[at] = f"{lines[at].split('=')[0]}= {rng.choice(WORDS)}"
        elif kind == "drop" and len(lines) > 1:
            lines.pop(at)
        elif kind == "copy":
            lines.insert(at, rng.choice(lines))
        elif kind == "letter" and lines[at]:
            place = rng.randrange(len(lines[at]))
            letter = chr(rng.randint(32, 126))
            lines[at] = lines[at][:place] + letter + lines[at][place + 1 :]
        elif kind == "scale":
            factor = rng.choice([0, 10, 1000, 1e6, 0.001, -1, 10**15])
            lines[at] = re.sub(
                r"\d+(\.\d+)?",
                lambda found, factor=factor: str(float(found[0]) * factor),
                lines[at],
                count=1,
            )
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("seed", "number"), [(0, 25), pytest.param(1, 1000, marks=pytest.mark.slow)]
)
def test_a_mutated_spec_ends_in_0_or_2_and_one_line(seed, number, tmp_path, capsys):
    rng = random.Random(seed)
    texts = [path.read_text() for path in sorted(SPECS.glob("*.toml"))]
    path = tmp_path / "mutated.toml"
    for _ in range(number):
        path.write_text(mutated(rng, rng.choice(texts)))
        begin = time.perf_counter()
        code = main(["automl", str(path)])
        seconds = time.perf_counter() - begin
        error = capsys.readouterr().err.strip()
        assert code in (0, 2), path.read_text()
        assert len(error.splitlines()) == (1 if code == 2 else 0), error
        assert seconds < 20, path.read_text()
