"""How closely llama.cpp computes a model of each of its architectures that is ours.

    python experiments/llama_cpp/agreement.py [--hidden 64] [--layers 2]

Weights are random: as they are drawn, and with 0.2 of a normal deviate added to each,
which makes activations and logits large. Prints Markdown. Needs the extra `llamacpp`.
"""

import argparse
import tempfile
from pathlib import Path

import jax
import numpy as np

from arch import ArchitectureConfig, build_model
from arch.initial import draw_parameters
from jaxnas.data import train_tokenizer
from jaxnas.export.llama_cpp import export_gguf
from jaxnas.export.llama_cpp.architectures import ARCHITECTURES, Architecture
from jaxnas.export.llama_cpp.verify import TEXTS, verify
from jaxnas.export.model_folder import save_model

BASE = {
    "arch_type": "transformer",
    "num_heads": 4,
    "ffn_multiplier": 4.0,
    "normalization": "rmsnorm",
    "activation": "gelu",
    "position_encoding": "rope",
    "vocab_size": 512,
    "max_seq_length": 128,
}


def config_of(architecture: Architecture, **sizes: object) -> ArchitectureConfig:
    """The first model that it takes."""
    taken = {field: values[0] for field, values in architecture.takes.items()}
    return ArchitectureConfig.from_dict(BASE | taken | sizes)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    options = parser.parse_args()
    sizes = {"hidden_dim": options.hidden, "num_layers": options.layers}
    tokenizer = train_tokenizer([*TEXTS] * 3, BASE["vocab_size"])
    print("| architecture | type | ids | greedy | as drawn | greedy | larger |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for architecture in ARCHITECTURES:
        for quantization, kind in (("fp16", "f32"), ("int8", None), ("int4", None)):
            config = config_of(architecture, quantization=quantization, **sizes)
            cells = []
            for extra in (0.0, 0.2):
                rng = np.random.default_rng(0)
                params = jax.tree.map(
                    lambda x, extra=extra, rng=rng: (
                        x + extra * rng.standard_normal(x.shape)
                    ).astype(np.float32),
                    draw_parameters(build_model(config), jax.random.key(0)),
                )
                with tempfile.TemporaryDirectory() as folder:
                    model, file = Path(folder) / "model", Path(folder) / "model.gguf"
                    exact = quantization == "fp16"
                    save_model(model, config, params, tokenizer, exact=exact)
                    written = export_gguf(model, file, kind)
                    verified = verify(model, file, file)
                    found = verified.file
                cells += [f"{found.greedy} of {found.new}", f"{found.difference:.1e}"]
            texts = f"{verified.texts} of {len(TEXTS)}"
            line = (architecture.name, written.kind, texts, *cells)
            print(f"| {' | '.join(line)} |", flush=True)


if __name__ == "__main__":
    main()
