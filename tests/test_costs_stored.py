"""Counted bytes are those of the tensors in the file."""

import jax
import pytest
import safetensors.numpy
from cost_configs import of_family

from arch import build_model, cost
from arch.config import QUANTIZATIONS
from arch.families import FAMILIES
from arch.initial import draw_parameters
from jaxnas.data import train_tokenizer
from jaxnas.export.model_folder import WEIGHTS, save_model

TOKENS = train_tokenizer(["def f(x):\n    return x\n"], 257)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.sweep(7)
def test_size_is_that_of_the_stored_tensors(tmp_path, family, tied):
    # Rows of 40, 100 and 3 end in padded blocks.
    fields = {"num_layers": 2, "hidden_dim": 40, "ffn_dim": 100, "inner_dim": 100}
    fields |= {"vocab_size": 257, "tie_embeddings": tied}
    plain = of_family(family, **fields)
    params = draw_parameters(build_model(plain), jax.random.key(0))
    for quantization in QUANTIZATIONS:
        for ratio in (0.0, 0.5):
            config = of_family(
                family, **fields, quantization=quantization, pruning_ratio=ratio
            )
            written = save_model(tmp_path, config, params, TOKENS)
            stored = safetensors.numpy.load_file(tmp_path / WEIGHTS).values()
            assert cost.size_bytes(config) == sum(tensor.nbytes for tensor in stored)
            assert cost.size_bytes(written) == cost.size_bytes(config)
