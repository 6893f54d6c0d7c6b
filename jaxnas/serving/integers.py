"""A model in onnxruntime, whose products are of 8-bit integers."""

import copy
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from arch import ArchitectureConfig
from arch.cost import parameters
from arch.decoding.generate import Generated
from arch.decoding.sampling import Sampling, SamplingParams, draw
from jaxnas.export.decoders import ATTENTION
from jaxnas.export.model_folder import LoadedModel, load_codes
from jaxnas.export.onnx.decoder import decoder_graph
from jaxnas.export.onnx.integers import integer_product
from jaxnas.export.rows import weights_of
from jaxnas.runtime import cores

PACKAGES = ("onnx", "onnxruntime")
MOST_PARAMETERS = 250_000_000  # a graph holds 2 GB, and embeddings are floats in it
PIECE = 256  # tokens that are read at once: attention's memory grows with them


def missing(config: ArchitectureConfig) -> str | None:
    """Why a model cannot be served so, None if it can."""
    if config.arch_type not in ATTENTION:
        return f"arch_type={config.arch_type!r} must be one of {', '.join(ATTENTION)}"
    if (number := parameters(config)) > MOST_PARAMETERS:
        return f"{number:,} parameters are more than {MOST_PARAMETERS:,}"
    absent = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    return f"it needs pip install {' '.join(absent)}" if absent else None


class IntegerModel:
    """Reads texts and draws; remembers the last one for the next to go on from."""

    def __init__(self, folder: Path, loaded: LoadedModel) -> None:
        """Loads the model, see `missing`."""
        import onnxruntime

        config = loaded.config
        weights = weights_of(config, loaded.params, load_codes(folder))
        graph = decoder_graph(config, weights, integer_product, last_alone=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = cores()
        content = graph.model().SerializeToString()
        self._session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"]
        )
        shape = (1, config.key_value_heads, 0, config.head_dim)
        nothing = np.zeros(shape, np.float32)
        inputs = [one.name for one in self._session.get_inputs()]
        self._outputs = [one.name for one in self._session.get_outputs()]
        self._names = [name for name in inputs if name.startswith("past_")]
        self._value = onnxruntime.OrtValue.ortvalue_from_numpy
        self._nothing = {name: self._value(nothing) for name in self._names}
        self._cache = self._nothing
        self._ids: list[int] = []

    def another(self) -> "IntegerModel":
        """The same model with nothing read; both may read at once."""
        found = copy.copy(self)
        found._cache, found._ids = self._nothing, []
        return found

    def drawn(
        self,
        key: jax.Array,
        prompt: Sequence[int],
        most: int,
        sampling: Sampling,
        stops: Sequence[int],
    ) -> Iterator[Generated]:
        """All that was drawn so far, after each token; as `arch.decoding.stream`."""
        knobs, key = sampling.knobs(), jax.random.fold_in(key, 0)
        found: list[int] = []
        logits = self.read(prompt)
        while True:
            found.append(int(_token(key, jnp.int32(len(found)), logits, knobs)))
            tokens = np.asarray([found], np.int32)
            yield Generated(tokens, np.asarray([len(found)], np.int32))
            if len(found) >= most or found[-1] in stops:
                return
            logits = self._read_on(found[-1:])

    def read(self, ids: Sequence[int]) -> np.ndarray:
        """The logits f32[V] behind a text of at least one token."""
        same = 0
        # The last one is always read: its logits are asked for.
        for old, new in zip(self._ids, ids[:-1], strict=False):
            if old != new:
                break
            same += 1
        if same < len(self._ids):
            self._ids = self._ids[:same]
            self._cache = {
                name: self._value(np.ascontiguousarray(kept.numpy()[:, :, :same]))
                for name, kept in self._cache.items()
            }
        for begin in range(same, len(ids), PIECE):
            logits = self._read_on(ids[begin : begin + PIECE])
        return logits

    def _read_on(self, ids: Sequence[int]) -> np.ndarray:
        begin, end = len(self._ids), len(self._ids) + len(ids)
        feeds = {
            "input_ids": self._value(np.asarray([ids], np.int64)),
            "attention_mask": self._value(np.ones((1, end), np.int64)),
            "position_ids": self._value(np.arange(begin, end, dtype=np.int64)[None]),
        }
        logits, *states = self._session.run_with_ort_values(
            self._outputs, feeds | self._cache
        )
        self._cache = dict(zip(self._names, states, strict=True))
        self._ids += ids
        found: np.ndarray = logits.numpy()[0, 0]
        return found


@jax.jit
def _token(
    key: jax.Array, index: jax.Array, logits: jax.Array, knobs: SamplingParams
) -> jax.Array:
    return draw(jax.random.fold_in(key, index), logits, None, knobs)
