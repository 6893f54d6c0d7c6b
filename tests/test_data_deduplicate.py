import random
import re
from collections import Counter
from itertools import combinations

import pytest

from jaxnas.data.deduplicate import THRESHOLD, deduplicate, similarity
from jaxnas.data.sources import SourceFile
from jaxnas.data.split import SPLITS, split, split_of

WORDS = [f"name_{i}" for i in range(400)]


def program(seed: int, lines: int = 60) -> list[str]:
    draw = random.Random(seed)
    pick = lambda: draw.choice(WORDS)
    return [f"{pick()} = {pick()}({pick()}, {draw.random():.3f})" for _ in range(lines)]


def source(name: str, lines: list[str]) -> SourceFile:
    return SourceFile(name, "\n".join(lines).encode())


def reference_similarity(one: bytes, other: bytes) -> float:
    def shingles(content):
        tokens = re.findall(r"\w+|[^\w\s]", content.decode())
        return {tuple(tokens[i : i + 5]) for i in range(max(len(tokens) - 4, 1))}

    a, b = shingles(one), shingles(other)
    return len(a & b) / len(a | b)


def family(seed: int) -> list[SourceFile]:
    """A program, an edit of it that falls in another split, and a renamed copy."""
    lines = program(seed)
    original = source(f"{seed}.py", lines)
    for attempt in range(1000):
        edited = source(f"edit{seed}.py", [*lines[:-1], f"last = {attempt}"])
        if split_of(edited.sha256) != split_of(original.sha256):
            return [original, edited, source(f"copy/{seed}.py", lines)]
    raise AssertionError("no edit changed the split")


def test_near_duplicates_never_end_up_on_both_sides_of_the_split():
    files = [file for seed in range(40) for file in family(seed)]
    kept, exact, near = deduplicate(files)
    assert (len(kept), exact, near) == (40, 40, 40)
    # One of each family is left, so it lies in one split; a split of the files as
    # they came would have torn every family apart.
    assert len({re.sub(r"\D", "", file.name) for file in kept}) == 40
    for one, other in combinations(kept, 2):
        assert reference_similarity(one.content, other.content) < THRESHOLD


def test_similarity_equals_a_set_of_token_tuples():
    lines = program(1)
    for changed in range(0, 60, 7):
        other = program(2)[:changed] + lines[changed:]
        pair = "\n".join(lines).encode(), "\n".join(other).encode()
        assert similarity(*pair) == reference_similarity(*pair)
    assert similarity(b"x = 1", b"x  =  1  ") == 1.0
    assert similarity(b"x = 1", b"x = 2") == 0.0
    assert similarity(b" \n", b"\t\t") == 1.0


@pytest.mark.parametrize("changed", range(0, 24, 3))
def test_the_threshold_decides(changed):
    """Changing lines step by step, a copy is dropped just while it is similar."""
    lines = program(3)
    other = [*lines[:-changed], *program(4)[:changed]] if changed else [*lines, "#"]
    pair = [source("a.py", lines), source("b.py", other)]
    alike = reference_similarity(pair[0].content, pair[1].content)
    assert (len(deduplicate(pair).kept) == 1) == (alike >= THRESHOLD)


def test_neither_order_nor_names_change_what_is_kept():
    files = [file for seed in range(20) for file in family(seed)]
    contents = [file.content for file in deduplicate(files).kept]
    for seed in range(3):
        random.Random(seed).shuffle(files)
        renamed = [SourceFile(f"{i}.c", file.content) for i, file in enumerate(files)]
        assert [file.content for file in deduplicate(renamed).kept] == contents


def test_the_order_is_by_content_and_of_equal_files_the_first_name_stays():
    files = [SourceFile(name, b"x = 1") for name in ("b.py", "c.py", "a.py")]
    files += [source(f"{seed}.py", program(seed)) for seed in range(5)]
    kept, exact, near = deduplicate(files)
    assert [file.sha256 for file in kept] == sorted({file.sha256 for file in files})
    assert "a.py" in {file.name for file in kept}
    assert (exact, near) == (2, 0)


def test_a_file_never_moves_when_others_are_added():
    files = [source(f"{seed}.py", program(seed, 3)) for seed in range(300)]
    few, many = split(files[:50]), split(files)
    for name in SPLITS:
        assert set(few[name]) == set(many[name]) & set(files[:50])
    assert sum(len(part) for part in many.values()) == 300


def test_the_split_of_a_hash_is_pinned():
    """A golden trace: a change here would move every held-out file."""
    tails = ["0", "cccccccccccccccc", "cccccccccccccccd", "e666666666666666", "f"]
    tails = [tails[0] * 16, *tails[1:4], tails[4] * 16]
    got = [split_of("0" * 48 + tail) for tail in tails]
    assert got == ["train", "train", "validation", "validation", "test"]


@pytest.mark.parametrize("rivals", [1, 4])
def test_fractions_hold_also_for_what_deduplication_keeps(rivals):
    draw = random.Random(rivals)
    digest = lambda: draw.randbytes(32).hex()
    kept = [min(digest() for _ in range(rivals)) for _ in range(5000)]
    share = Counter(map(split_of, kept))
    assert share["train"] / 5000 == pytest.approx(0.8, abs=0.02)
    assert share["validation"] / 5000 == pytest.approx(0.1, abs=0.015)
    assert share["test"] / 5000 == pytest.approx(0.1, abs=0.015)
