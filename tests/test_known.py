"""Known models: counted as their checkpoints have them, to the parameter."""

from pathlib import Path

import pytest

from arch import cost
from arch.published import KNOWN


@pytest.mark.parametrize("name", KNOWN)
def test_known_models_are_counted_exactly(name):
    known = KNOWN[name]
    assert cost.parameters(known.config) == known.parameters
    assert known.config.canonical() == known.config
    assert known.source


def test_the_known_models_are_those_of_the_record():
    assert {name: known.parameters for name, known in KNOWN.items()} == {
        "Llama-2-7B": 6_738_415_616,
        "Llama-3-8B": 8_030_261_248,
        "Mistral-7B": 7_241_732_096,
        "TinyLlama-1.1B": 1_100_048_384,
        "SmolLM-135M": 134_515_008,
        "Mamba-130m": 129_135_360,
        "RWKV-4-169m": 169_342_464,
    }


def theirs(transformers, config):
    """The published class, at the published settings."""
    shape = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_dim,
        "num_hidden_layers": config.num_layers,
        "tie_word_embeddings": config.tie_embeddings,
    }
    if config.arch_type == "mamba":
        return transformers.MambaForCausalLM(transformers.MambaConfig(**shape))
    if config.arch_type == "rwkv":
        return transformers.RwkvForCausalLM(transformers.RwkvConfig(**shape))
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            **shape,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.key_value_heads,
            intermediate_size=config.feedforward_dim,
        )
    )


@pytest.mark.parametrize("name", KNOWN)
def test_the_published_class_has_as_many(name):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):  # shapes, no memory
        model = theirs(transformers, KNOWN[name].config)
        model.tie_weights()
    assert sum(weight.numel() for weight in model.parameters()) == (
        KNOWN[name].parameters
    )


def test_the_document_has_the_known_models():
    document = (Path(__file__).parents[1] / "docs/costs.md").read_text()
    for name, known in KNOWN.items():
        assert f"| {name} | {known.parameters:,} | {known.source} |" in document
