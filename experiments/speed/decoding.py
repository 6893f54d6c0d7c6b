"""Decoded tokens a second, beside `generate` of transformers on the same weights."""

import tempfile
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.table import Table
from timing import race

from arch import ArchitectureConfig, build_model
from arch.decoding.generate import generate
from arch.decoding.unrolled import unstack
from jaxnas.export import class_for, export_random
from jaxnas.export.write import random_model
from jaxnas.report.tables import add_numbers, plain_table

PROMPT, NEW, VOCAB = 32, 128, 8192

# One model of each class that can be exported, and one more family for Llama.
MODELS = {
    "transformer": ("rmsnorm", "swiglu", "rope"),
    "flash_attention": ("rmsnorm", "swiglu", "rope"),
    "grouped_query_attention": ("rmsnorm", "swiglu", "rope"),
    "transformer Arcee": ("rmsnorm", "silu", "rope"),
    "transformer Starcoder2": ("layernorm", "gelu", "rope"),
    "transformer StableLm": ("layernorm", "swiglu", "rope"),
    "transformer GPT2": ("layernorm", "gelu", "absolute"),
    "transformer MPT": ("layernorm", "gelu", "alibi"),
    "mamba": ("rmsnorm", "gelu", "absolute"),
    "rwkv": ("layernorm", "gelu", "absolute"),
}


def config_of(name: str, small: bool) -> ArchitectureConfig:
    """Four layers of 256 channels, smaller to try it out."""
    normalization, activation, position = MODELS[name]
    return ArchitectureConfig(
        arch_type=name.split()[0],
        num_layers=2 if small else 4,
        hidden_dim=64 if small else 256,
        num_heads=4,
        ffn_multiplier=4.0,
        normalization=normalization,
        activation=activation,
        position_encoding=position,
        vocab_size=512 if small else VOCAB,
        max_seq_length=PROMPT + NEW,
    ).canonical()


def race_decoding(small: bool) -> list[dict]:
    """Tokens a second of both, model by model, each pair side by side."""
    return [race_model(name, config_of(name, small), small) for name in MODELS]


def race_model(name: str, config: ArchitectureConfig, small: bool) -> dict:
    """One model, greedy, batch 1; both have to draw the same tokens."""
    import torch
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file, folder = Path(place) / "config.json", Path(place) / "exported"
        file.write_text(config.to_json())
        export_random(file, 0, folder)
        theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config, params = random_model(config, 0)
    weights = unstack(params)
    new = 16 if small else NEW
    prompt = np.random.default_rng(0).integers(0, config.vocab_size, PROMPT).tolist()
    key = jax.random.key(0)

    def ours():
        key_ = jax.random.clone(key)
        return generate(key_, config, weights, [prompt], max_new=new).tokens

    def by_transformers():
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            out = theirs.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=new,
                min_new_tokens=new,
                pad_token_id=0,
            )
        return out[:, PROMPT:].numpy()

    if not np.array_equal(ours(), by_transformers()):
        raise SystemExit(f"{name}: the two drew different tokens")
    with torch.inference_mode():
        theirs_read = theirs(torch.tensor([prompt])).logits.numpy()
    ours_read = build_model(config).apply({"params": params}, jnp.asarray([prompt]))
    apart = float(np.abs(ours_read - theirs_read).max())
    timings = race({"ours": ours, "theirs": by_transformers}, seconds=4.0, most=10)
    rates = {who: new / timing.median for who, timing in timings.items()}
    return {
        "model": name,
        "class": class_for(config).architecture,
        "ours": rates["ours"],
        "theirs": rates["theirs"],
        "faster": rates["ours"] / rates["theirs"],
        "tokens": new,
        "logits_apart": apart,
    }


def decoding_table(rows: list[dict]) -> Table:
    """Tokens a second, prompt included, and their ratio."""
    title = "Decoding, greedy, batch 1, tokens a second with the prompt's reading"
    table = plain_table(title, "model", "class in transformers")
    add_numbers(table, "ours", "transformers", "ratio", "logits apart")
    for row in rows:
        table.add_row(
            row["model"],
            row["class"],
            f"{row['ours']:.0f}",
            f"{row['theirs']:.0f}",
            f"{row['faster']:.1f}",
            f"{row['logits_apart']:.1e}",
        )
    return table
