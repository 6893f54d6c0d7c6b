"""Exported folders in `transformers` against our own modules."""

import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from export_cells import (
    TEXT,
    TOKENS,
    cell,
    exact_cells,
    expected_class,
    name_of,
    perturbed,
    tied,
)
from safetensors.numpy import load_file

from arch import build_model
from arch.config import QUANTIZATIONS
from jaxnas.compress import prune, round_weights
from jaxnas.export import export_folder, import_folder
from jaxnas.export.model_folder import (
    CONFIG,
    TOKENIZER,
    WEIGHTS,
    load_model,
    save_model,
)

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

PROMPT, NEW = 8, 16
TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}
# A cell for each class.
CLASSES = [
    cell("transformer"),
    cell("grouped_query_attention", activation="gelu", kv_heads=2),
    cell("transformer", "layernorm"),
    cell("transformer", "layernorm", activation="silu"),
    cell("transformer", "layernorm", "absolute", "gelu"),
    cell("transformer", "layernorm", "alibi", "gelu"),
    cell("mamba"),
    cell("rwkv"),
]


@pytest.fixture(scope="module", autouse=True)
def _quiet():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)


def saved(config, params, folder, exact=True):
    save_model(folder, config, params, TOKENS, exact=exact)
    return folder


def loaded(folder):
    """The folder's model as anyone would load it."""
    model, found = transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", output_loading_info=True
    )
    assert not any(found.values()), found
    assert model.dtype == torch.float32
    return model.eval()


def their_logits(model, tokens):
    with torch.no_grad():
        return model(torch.tensor(tokens)).logits.float().numpy()


def their_greedy(model, prompts):
    """One row at a time: RwkvForCausalLM mixes the rows of a batch up."""
    rows = [
        model.generate(
            torch.tensor(prompt[None]),
            attention_mask=torch.ones((1, len(prompt)), dtype=torch.int64),
            do_sample=False,
            max_new_tokens=NEW,
            eos_token_id=None,
        )
        for prompt in prompts
    ]
    return torch.cat(rows).numpy()


def our_logits(config, params, tokens):
    """Logits of [B, PROMPT + NEW] tokens, and a function for more of them."""
    model = build_model(config)
    apply = jax.jit(lambda params, tokens: model.apply({"params": params}, tokens))
    # Each cell is a program of its own: compiling is what takes time.
    quick = {"xla_backend_optimization_level": 0}
    compiled = apply.lower(params, tokens).compile(quick)
    return compiled(params, tokens), lambda tokens: compiled(params, tokens)


def our_greedy(logits, prompts):
    """Each new token is the likeliest after a whole new reading."""
    tokens = np.zeros((len(prompts), PROMPT + NEW), np.int32)
    tokens[:, :PROMPT] = prompts
    for at in range(PROMPT, PROMPT + NEW):
        tokens[:, at] = np.asarray(logits(tokens))[:, at - 1].argmax(axis=-1)
    return tokens


def draw_tokens(config, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, config.vocab_size, (2, PROMPT + NEW), np.int32)


def same_bits(one, other):
    """The weights files hold the same tensors."""
    ours, theirs = (load_file(folder / WEIGHTS) for folder in (one, other))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype, name
        assert tensor.shape == theirs[name].shape, name
        assert tensor.tobytes() == theirs[name].tobytes(), name


@pytest.mark.parametrize("tie", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("config", exact_cells(), ids=name_of)
def test_the_exported_class_computes_our_function(tmp_path, config, tie):
    config = tied(config) if tie else config
    params = perturbed(config)
    written = export_folder(saved(config, params, tmp_path / "ours"), tmp_path / "out")
    assert written.architecture == expected_class(config)
    theirs = loaded(tmp_path / "out")
    assert type(theirs).__name__ == expected_class(config)
    tokens = draw_tokens(config)
    logits, again = our_logits(config, params, tokens)
    np.testing.assert_allclose(their_logits(theirs, tokens), logits, **TOLERANCE)
    prompts = tokens[:, :PROMPT]
    np.testing.assert_array_equal(
        their_greedy(theirs, prompts), our_greedy(again, prompts)
    )


@pytest.mark.parametrize(
    ("genes", "quantization"),
    [(("layernorm", "absolute", "gelu"), "fp16"), ((), "int4")],
    ids=["fp16", "int4"],
)
def test_a_compressed_model_is_exported_as_it_was_scored(tmp_path, genes, quantization):
    config = cell("transformer", *genes, quantization=quantization, pruning_ratio=0.4)
    params = perturbed(config)
    folder = saved(config, params, tmp_path / "ours", exact=False)
    export_folder(folder, tmp_path / "out")
    config, params = prune(config, params)
    rounded = round_weights(params, QUANTIZATIONS.index(quantization))
    tokens = draw_tokens(config)
    logits, _ = our_logits(config, rounded, tokens)
    theirs = their_logits(loaded(tmp_path / "out"), tokens)
    np.testing.assert_allclose(theirs, logits, **TOLERANCE)


@pytest.mark.parametrize("config", CLASSES, ids=expected_class)
def test_transformers_reads_and_writes_text_as_ours(tmp_path, config):
    export_folder(saved(config, perturbed(config), tmp_path / "ours"), tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    ours = load_model(tmp_path / "ours").tokenizer
    assert tokenizer(TEXT)["input_ids"] == ours.encode(TEXT).ids
    assert tokenizer.decode(tokenizer(TEXT)["input_ids"]) == TEXT
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == 0
    assert tokenizer.model_max_length == config.max_seq_length
    model = loaded(tmp_path / "out")
    for special in (model.config, model.generation_config):
        assert (special.bos_token_id, special.eos_token_id) == (0, 0)


def test_what_the_card_says_runs(tmp_path, monkeypatch, capsys):
    config = CLASSES[0]
    export_folder(saved(config, perturbed(config), tmp_path / "ours"), tmp_path / "out")
    monkeypatch.chdir(tmp_path / "out")
    [program] = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(), re.S)
    exec(program, {})
    assert capsys.readouterr().out.startswith("def ")


@pytest.mark.parametrize("config", CLASSES, ids=expected_class)
def test_a_checkpoint_of_transformers_becomes_ours(tmp_path, config):
    """Written by transformers itself, in parts, with weights of its own."""
    export_folder(saved(config, perturbed(config), tmp_path / "ours"), tmp_path / "out")
    theirs = loaded(tmp_path / "out")
    learned = config.arch_type in ("mamba", "rwkv")  # have biases of their own
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            if "wpe" not in name and (learned or not name.endswith(".bias")):
                weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="40KB")
    assert not (tmp_path / "theirs" / WEIGHTS).exists()
    found = import_folder(
        tmp_path / "theirs", tmp_path / "model", tmp_path / "ours" / TOKENIZER
    )
    assert found.config == config.canonical()
    read = load_model(tmp_path / "model")
    tokens = draw_tokens(config)
    logits, _ = our_logits(read.config, read.params, tokens)
    np.testing.assert_allclose(their_logits(theirs, tokens), logits, **TOLERANCE)
    # In one file, to compare with what export writes.
    theirs.save_pretrained(tmp_path / "whole")
    export_folder(tmp_path / "model", tmp_path / "again")
    same_bits(tmp_path / "whole", tmp_path / "again")


def test_an_rwkv_that_halves_its_activations_is_the_same_function(tmp_path):
    config = cell("rwkv", num_layers=3)
    params = perturbed(config)
    export_folder(saved(config, params, tmp_path / "ours"), tmp_path / "out")
    settings = json.loads((tmp_path / "out" / CONFIG).read_text())
    assert settings["rescale_every"] == 0
    settings["rescale_every"] = 1  # as published checkpoints do, every 6 layers
    (tmp_path / "out" / CONFIG).write_text(json.dumps(settings))
    import_folder(tmp_path / "out", tmp_path / "model")
    read = load_model(tmp_path / "model")
    tokens = draw_tokens(config)
    logits, _ = our_logits(read.config, read.params, tokens)
    theirs = their_logits(loaded(tmp_path / "out"), tokens)
    np.testing.assert_allclose(theirs, logits, **TOLERANCE)
