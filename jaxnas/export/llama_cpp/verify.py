"""A GGUF file in llama.cpp against the model folder it was made from."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from arch import ArchitectureConfig, Params, build_model
from jaxnas.errors import RunFailed, UsageError
from jaxnas.export.model_folder import load_model

NEW = 16  # greedy tokens to compare
PROMPT = 64  # tokens before them at most
LIKELY = 1e-5  # least probability of a token that is compared
LIMIT = 0.02  # of an F32 file's difference; its GELU is a table of fp16 numbers
_TOP = 1000  # tokens that llama.cpp tells of, the likeliest
_SECONDS = 600
_PACKAGE = "xllamacpp"

TEXTS = (
    "def add(a, b):\n    return a + b\n\n\nclass Stack:\n    def __init__(self):\n"
    '        self.items = []\n\n    def push(self, item):\n        """Puts it on '
    'top."""\n        self.items.append(item)\n',
    "x = [i ** 2 for i in range(10, 12345, 7) if i % 3 != 0]  # squares\n",
    "\tif not self._cache.get(key):\r\n\t\traise KeyError(f'{key!r} is missing')\n",
    "   \n\n\n  lambda *args, **kwargs: None   ",
    "naïve café = 'Größe' \N{SNOWMAN} \N{GRINNING FACE} 你好、世界 ١٢٣ ½ ²",
    "it's we'll they've I'd  don't CAN'T \N{NO-BREAK SPACE}\N{ZERO WIDTH SPACE}x",
)


class Agreement(NamedTuple):
    """How llama.cpp agrees with our model."""

    texts: int  # texts split into the same tokens
    greedy: int  # likeliest next tokens that are the same, before the first other one
    new: int  # next tokens that were compared
    difference: float  # largest, of log-probabilities in nats


class Verified(NamedTuple):
    """What was found of a file.

    llama.cpp rounds activations to fp16 where weights are F16, and to 8 bits where
    they are quantised. So the same weights as F32 tell whether it computes the same
    function, and the file's tensors whether they are these weights.
    """

    file: Agreement
    as_f32: Agreement  # of the same model's F32 file
    same: bool  # the file's tensors hold the very values of that one


def check_runtime() -> None:
    """Raises a UsageError where llama.cpp cannot be run beside us."""
    if importlib.util.find_spec(_PACKAGE) is None:
        raise UsageError(
            f"--verify runs llama.cpp from the package {_PACKAGE}: "
            f"pip install 'jaxnas[llamacpp]'"
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
    limit = config.max_seq_length  # which the file states, and llama.cpp keeps to
    new = max(1, min(NEW, limit // 2))
    prompt = ids[0][: max(1, min(PROMPT, limit - new))]
    tokens, ours = _greedy(config, params, prompt, new)

    def compare(path: Path) -> Agreement:
        found = _run(
            {
                "path": str(path),
                "texts": TEXTS,
                "tokens": tokens[:-1],
                "begin": len(prompt),
                "plain": tokenizer.encode("a").ids[0],
                "top": min(_TOP, config.vocab_size),
                "context": len(tokens),
            }
        )
        theirs = [dict(pairs) for pairs in found["next"]]
        likeliest = [pairs[0][0] for pairs in found["next"]]
        same = [a == b for a, b in zip(likeliest, tokens[len(prompt) :], strict=True)]
        return Agreement(
            texts=sum(a == b for a, b in zip(found["ids"], ids, strict=True)),
            greedy=[*same, False].index(False),
            new=new,
            difference=max(map(_difference, ours, theirs)),
        )

    agreement = compare(file)
    if file == f32:
        return Verified(agreement, agreement, True)
    return Verified(agreement, compare(f32), _same_values(file, f32))


def _same_values(file: Path, other: Path) -> bool:
    import gguf

    def values(path: Path) -> dict[str, np.ndarray]:
        tensors = gguf.GGUFReader(path).tensors
        return {t.name: gguf.dequantize(t.data, t.tensor_type) for t in tensors}

    ours, theirs = values(file), values(other)
    return ours.keys() == theirs.keys() and all(
        np.array_equal(tensor, theirs[name]) for name, tensor in ours.items()
    )


def _greedy(
    config: ArchitectureConfig, params: Params, prompt: Sequence[int], new: int
) -> tuple[list[int], np.ndarray]:
    """The prompt with our likeliest tokens, and f32[new, V]: log-probabilities."""
    model = build_model(config)

    @jax.jit
    def read(tokens: jax.Array) -> jax.Array:
        with jax.default_matmul_precision("highest"):
            logits = model.apply({"params": params}, tokens)
        return jax.nn.log_softmax(logits[0].astype(np.float32))

    tokens = np.zeros((1, len(prompt) + new), np.int32)
    tokens[0, : len(prompt)] = prompt
    # Reading anew each time uses no cache of ours; what is behind does not matter.
    for at in range(len(prompt), len(prompt) + new):
        tokens[0, at] = np.asarray(read(tokens))[at - 1].argmax()
    return tokens[0].tolist(), np.asarray(read(tokens))[len(prompt) - 1 : -1]


def _difference(ours: np.ndarray, theirs: dict[int, float]) -> float:
    likely = [t for t in theirs if ours[t] >= np.log(LIKELY)]
    missing = {int(np.argmax(ours))} - {*theirs}
    if missing or not likely:
        return float("inf")
    return max(abs(float(ours[token]) - theirs[token]) for token in likely)


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
