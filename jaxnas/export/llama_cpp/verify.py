"""A GGUF file in llama.cpp against the model folder it was made from."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxnas.errors import RunFailed, UsageError
from jaxnas.export.model_folder import load_model
from jaxnas.export.reference import TEXT, Agreed, reference_of

LIMIT = 0.02  # of an F32 file's difference; its GELU is a table of fp16 numbers
_TOP = 1000  # tokens that llama.cpp tells of, the likeliest
_SECONDS = 600
_PACKAGE = "xllamacpp"

TEXTS = (
    TEXT,
    "x = [i ** 2 for i in range(10, 12345, 7) if i % 3 != 0]  # squares\n",
    "\tif not self._cache.get(key):\r\n\t\traise KeyError(f'{key!r} is missing')\n",
    "   \n\n\n  lambda *args, **kwargs: None   ",
    "naïve café = 'Größe' \N{SNOWMAN} \N{GRINNING FACE} 你好、世界 ١٢٣ ½ ²",
    "it's we'll they've I'd  don't CAN'T \N{NO-BREAK SPACE}\N{ZERO WIDTH SPACE}x",
)


class Verified(NamedTuple):
    """What was found of a file.

    llama.cpp rounds activations to fp16 where weights are F16, and to 8 bits where
    they are quantised. So the same weights as F32 tell whether it computes the same
    function, and the file's tensors whether they are these weights.
    """

    texts: int  # texts split into the same tokens
    file: Agreed
    as_f32: Agreed  # of the same model's F32 file
    same: bool  # the file's tensors hold the very values of that one


def check_runtime() -> None:
    """Raises a UsageError where llama.cpp cannot be run beside us."""
    if importlib.util.find_spec(_PACKAGE) is None:
        raise UsageError(
            f"--verify runs llama.cpp from the package {_PACKAGE}: "
            f"pip install {_PACKAGE}"
        )


def verify(model: Path, file: Path, f32: Path) -> Verified:
    """Runs llama.cpp on a model's files, one thread, and compares.

    Both read the same prompt and go on with our likeliest token each time, so that
    every comparison is of the same text; ours computes in float32.

    Args:
      model: the model folder.
      file: its GGUF.
      f32: its GGUF in F32, which may be the same.

    Raises:
      RunFailed: llama.cpp cannot load or run a file; the line says why.
    """
    check_runtime()
    config, params, tokenizer = load_model(model)
    ids = [tokenizer.encode(text).ids for text in TEXTS]
    # Its length is what the file states, and llama.cpp keeps to.
    reference = reference_of(config, params, tokenizer)

    def compare(path: Path) -> tuple[int, Agreed]:
        found = _run(
            {
                "path": str(path),
                "texts": TEXTS,
                "tokens": reference.read,
                "begin": len(reference.prompt),
                "plain": tokenizer.encode("a").ids[0],
                "top": min(_TOP, config.vocab_size),
                "context": len(reference.read) + 1,
            }
        )
        texts = sum(a == b for a, b in zip(found["ids"], ids, strict=True))
        likeliest = [pairs[0][0] for pairs in found["next"]]
        return texts, reference.compare(likeliest, list(map(dict, found["next"])))

    texts, agreement = compare(file)
    if file == f32:
        return Verified(texts, agreement, agreement, True)
    return Verified(texts, agreement, compare(f32)[1], _same_values(file, f32))


def _same_values(file: Path, other: Path) -> bool:
    import gguf

    def values(path: Path) -> dict[str, np.ndarray]:
        tensors = gguf.GGUFReader(path).tensors
        return {t.name: gguf.dequantize(t.data, t.tensor_type) for t in tensors}

    ours, theirs = values(file), values(other)
    return ours.keys() == theirs.keys() and all(
        np.array_equal(tensor, theirs[name]) for name, tensor in ours.items()
    )


def _run(job: dict[str, Any]) -> dict[str, Any]:
    """llama.cpp's answer to a job (see `child.py`)."""
    try:
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("child.py"))],
            input=json.dumps(job),
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise RunFailed(f"llama.cpp took more than {_SECONDS} s") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        told = [line for line in lines if "error" in line.lower()] or lines or ["?"]
        raise RunFailed(f"llama.cpp cannot run the file: {told[0].strip()}")
    return json.loads(done.stdout)
