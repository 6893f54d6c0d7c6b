"""Export: a model of ours as a folder for onnxruntime and transformers.js."""

import importlib.util
from pathlib import Path

import jax

from arch import ArchitectureConfig
from arch.cost import size_bytes
from jaxnas.errors import UsageError
from jaxnas.export.card import CARD, model_card
from jaxnas.export.folder import check_free, whole_folder
from jaxnas.export.model_folder import CONFIG, load_codes, load_model
from jaxnas.export.onnx.decoder import check_family, decoder_graph
from jaxnas.export.onnx.graph import Graph
from jaxnas.export.onnx.verify import agreement_of
from jaxnas.export.reference import Agreed
from jaxnas.export.rows import weights_of
from jaxnas.export.tokens import write_tokens
from jaxnas.export.write import Exported
from jaxnas.storage.files import write_json, write_whole
from jaxnas.storage.jsonl import Json

GRAPH = "onnx/model.onnx"  # where transformers.js looks for it


def check_package(name: str) -> None:
    """Raises a UsageError if a package that is needed is not there."""
    if importlib.util.find_spec(name) is None:
        raise UsageError(f"ONNX needs the package {name}: pip install {name}")


def export_onnx(
    model: Path, out: Path, verify: bool = False
) -> tuple[Exported, Agreed | None]:
    """Exports a model folder as a graph that reads on from a cache.

    Args:
      model: the folder, as `save_model` wrote it.
      out: the folder to make.
      verify: runs onnxruntime on the graph, and keeps it only if it agrees.

    Raises:
      UsageError: it is no softmax attention, there is no model, a package is
        missing, a file cannot hold the weights, or `out` is not free. Then nothing
        is written.
      RunFailed: onnxruntime computes something else.
    """
    check_free(out)
    check_package("onnx")
    if verify:
        check_package("onnxruntime")
    loaded = load_model(model)
    config = loaded.config
    check_family(config)
    weights = weights_of(config, loaded.params, load_codes(model))
    graph = decoder_graph(config, weights)
    content = graph.model().SerializeToString()
    agreement = agreement_of(loaded, content) if verify else None
    with whole_folder(out) as folder:
        ids = write_tokens(model, loaded.tokenizer, config.max_seq_length, folder)
        write_json(folder / CONFIG, {**_settings(config), **ids})
        (folder / GRAPH).parent.mkdir()
        write_whole(folder / GRAPH, content)
        write_whole(folder / CARD, model_card(model, config, "onnx"))
    exported = Exported(
        f"ONNX opset {graph.opset}",
        sum(leaf.size for leaf in jax.tree.leaves(loaded.params)),
        _kind(graph, config),
        len(content),
        loaded.tokenizer.get_vocab_size(),
        config.quantization,
        size_bytes(config),
    )
    return exported, agreement


def _settings(config: ArchitectureConfig) -> Json:
    """What transformers.js reads: the shapes of a cache, under a name that it knows.

    The graph is what computes. A Llama's cache has its shapes, whatever the norm,
    the positions and the activation.
    """
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.key_value_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_seq_length,
        "tie_word_embeddings": config.tie_embeddings,
    }


def _kind(graph: Graph, config: ArchitectureConfig) -> str:
    """The types of the matrices."""
    if config.quantization != "fp16":
        return config.quantization
    matrices = [x for x in graph.weights.values() if x.ndim == 2]
    return " and ".join(sorted({x.dtype.name for x in matrices}))
