"""Models as they are published, at small sizes: their logits are ours."""

import jax
import numpy as np
import pytest
from export_cells import TOKENS

from arch import build_model, cost
from arch.decoding.generate import generate
from arch.decoding.unrolled import unstack
from jaxnas.export import export_folder, import_folder
from jaxnas.export.model_folder import load_model

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = {
    "vocab_size": 300,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "max_position_embeddings": 64,
}
# What their config.json say, sizes apart.
PUBLISHED = {
    "SmolLM2-135M": (
        "llama",
        {"num_attention_heads": 6, "num_key_value_heads": 2, "rms_norm_eps": 1e-5}
        | {"rope_theta": 100000.0, "tie_word_embeddings": True},
    ),
    "DeepSeek-Coder-1.3B": (
        "llama",
        {"num_attention_heads": 4, "num_key_value_heads": 4, "rms_norm_eps": 1e-6}
        | {"rope_theta": 100000.0, "rope_scaling": {"type": "linear", "factor": 4.0}},
    ),
    "Qwen2.5-Coder-0.5B": (
        "qwen2",
        {"num_attention_heads": 6, "num_key_value_heads": 2, "rms_norm_eps": 1e-6}
        | {"rope_theta": 1000000.0, "tie_word_embeddings": True}
        | {"use_sliding_window": False, "sliding_window": 32768},
    ),
    "StarCoder2-3B": (
        "starcoder2",
        {"num_attention_heads": 6, "num_key_value_heads": 2, "norm_epsilon": 1e-5}
        | {"rope_theta": 999999.4420358813, "use_bias": True, "sliding_window": 12}
        | {"hidden_act": "gelu_pytorch_tanh", "tie_word_embeddings": True},
    ),
    "GPT-2": (
        "gpt2",
        {"vocab_size": 300, "n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 64}
        | {"activation_function": "gelu_new", "layer_norm_epsilon": 1e-5},
    ),
    "Pythia-70M": (
        "gpt_neox",
        {"num_attention_heads": 4, "rope_theta": 10000.0, "layer_norm_eps": 1e-5}
        | {"rotary_pct": 0.5, "use_parallel_residual": True}
        | {"bos_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": False},
    ),
    "GPT-NeoX-in-turn": (
        "gpt_neox",
        {"num_attention_heads": 3, "rotary_pct": 0.25, "rotary_emb_base": 500.0}
        | {"use_parallel_residual": False, "attention_bias": False}
        | {"bos_token_id": 0, "eos_token_id": 0, "hidden_act": "gelu_pytorch_tanh"},
    ),
    "CodeGen-350M": (
        "codegen",
        {"vocab_size": 300, "n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 64}
        | {"n_ctx": 64, "rotary_dim": 4, "bos_token_id": 0, "eos_token_id": 0}
        | {"activation_function": "gelu_new", "layer_norm_epsilon": 1e-5},
    ),
    "TinyStarCoderPy": (
        "gpt_bigcode",
        {"vocab_size": 300, "n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 64}
        | {"activation_function": "gelu_pytorch_tanh", "multi_query": True}
        | {"n_inner": 192, "layer_norm_epsilon": 1e-5},
    ),
}


@pytest.fixture(scope="module", autouse=True)
def _quiet():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)


def drawn(name):
    """The architecture with random weights, biases and scales too."""
    kind, settings = PUBLISHED[name]
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(
        kind, **({} if "n_embd" in settings else SIZES) | settings
    )
    model = transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation="eager"
    )
    with torch.no_grad():
        for parameter in model.parameters():
            size = 0.3 if parameter.ndim == 1 else 0.15
            parameter.add_(size * torch.randn_like(parameter))
    return model.float().eval()


@pytest.fixture(params=PUBLISHED)
def both(request, tmp_path):
    """A model of theirs, and the folder it was imported to."""
    model = drawn(request.param)
    model.save_pretrained(tmp_path / "theirs")
    (tmp_path / "theirs" / "tokenizer.json").write_text(TOKENS.to_str())
    imported = import_folder(tmp_path / "theirs", tmp_path / "ours")
    return model, tmp_path / "ours", imported


def logits_of(model, tokens):
    with torch.no_grad():
        return model(torch.tensor(tokens)).logits.float().numpy()


def test_logits_parameters_and_tokens_are_theirs(both):
    theirs, folder, imported = both
    ours = load_model(folder)
    tokens = np.random.default_rng(1).integers(0, 300, (2, 48))
    found = build_model(ours.config).apply({"params": ours.params}, tokens)
    np.testing.assert_allclose(found, logits_of(theirs, tokens), atol=1e-4, rtol=1e-4)
    number = sum(parameter.numel() for parameter in theirs.parameters())
    assert cost.parameters(ours.config) == imported.parameters == number
    prompt = tokens[:1, :8]
    drawn = generate(
        jax.random.key(0),
        ours.config,
        unstack(ours.params),
        prompt.tolist(),
        max_new=16,
    )
    expected = theirs.generate(
        torch.tensor(prompt), do_sample=False, max_new_tokens=16, eos_token_id=None
    )
    assert drawn.tokens[0].tolist() == expected[0, 8:].tolist()


def test_what_was_imported_goes_back(both, tmp_path):
    theirs, folder, _ = both
    export_folder(folder, tmp_path / "back")
    back = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "back", attn_implementation="eager"
    )
    assert type(back) is type(theirs)
    tokens = np.random.default_rng(2).integers(0, 300, (1, 40))
    np.testing.assert_allclose(
        logits_of(back.eval(), tokens), logits_of(theirs, tokens), atol=1e-5, rtol=1e-5
    )
