"""A small body of code for tests, made here: real syntax, no two files alike."""

import random
from pathlib import Path


def write_corpus(folder: Path, files: int = 80) -> Path:
    """Writes files of generated Python functions, the same each time."""
    rng = random.Random(0)
    nouns = [
        "tree",
        "node",
        "leaf",
        "path",
        "file",
        "line",
        "word",
        "token",
        "score",
        "weight",
        "batch",
        "step",
    ]
    verbs = [
        "read",
        "write",
        "find",
        "sort",
        "merge",
        "split",
        "count",
        "load",
        "store",
        "check",
        "parse",
        "walk",
    ]
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        parts = []
        for _ in range(12):
            verb, noun, other = rng.choice(verbs), rng.choice(nouns), rng.choice(nouns)
            bound, factor = rng.randrange(2, 99), rng.randrange(2, 9)
            parts.append(
                f"def {verb}_{noun}_{number}({other}, limit={bound}):\n"
                f"    total = 0\n"
                f"    for {noun} in range(limit):\n"
                f"        if {other} % {factor} == {rng.randrange(factor)}:\n"
                f"            total += {noun} * {bound}\n"
                f"    return total, '{rng.choice(verbs)} {rng.choice(nouns)}'\n"
            )
        (folder / f"module_{number:03d}.py").write_text("\n\n".join(parts))
    return folder
