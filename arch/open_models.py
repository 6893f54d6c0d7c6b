"""The shapes of thirty open models, 124M to 70B, for comparison and as starts.

Shapes only: what a model has beside them (biases, positions, norms) is that of the
configs here. For models that are counted to the parameter see `arch.published`.
"""

from typing import NamedTuple

from arch.config import ArchitectureConfig

_LITGPT = "litgpt/config.py of Lightning-AI/litgpt at 26857050"
_PAGE = "config.json of the model's page at huggingface.co"


class OpenModel(NamedTuple):
    """One model; its heads are as wide as hidden / heads."""

    name: str
    checkpoint: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    ffn_dim: int
    gated: bool
    vocab: int
    tied: bool
    source: str

    @property
    def config(self) -> ArchitectureConfig:
        """Its shape as a config, with rotary positions and RMSNorm."""
        grouped = self.kv_heads < self.heads
        return ArchitectureConfig(
            arch_type="grouped_query_attention" if grouped else "transformer",
            num_layers=self.layers,
            hidden_dim=self.hidden,
            num_heads=self.heads,
            kv_heads=self.kv_heads if grouped else None,
            ffn_multiplier=4.0,
            ffn_dim=self.ffn_dim,
            normalization="rmsnorm",
            activation="swiglu" if self.gated else "gelu",
            position_encoding="rope",
            vocab_size=self.vocab,
            tie_embeddings=self.tied,
        ).canonical()


# In the order of `OpenModel`'s fields.
# fmt: off
_ROWS = (
    ("GPT-2", "openai-community/gpt2",
     12, 768, 12, 12, 3072, False, 50257, True, _PAGE),
    ("SmolLM2-135M", "HuggingFaceTB/SmolLM2-135M",
     30, 576, 9, 3, 1536, True, 49152, True, _LITGPT),
    ("Pythia-160M", "EleutherAI/pythia-160m",
     12, 768, 12, 12, 3072, False, 50304, False, _LITGPT),
    ("GPT-2-medium", "openai-community/gpt2-medium",
     24, 1024, 16, 16, 4096, False, 50257, True, _PAGE),
    ("SmolLM2-360M", "HuggingFaceTB/SmolLM2-360M",
     32, 960, 15, 5, 2560, True, 49152, True, _LITGPT),
    ("Pythia-410M", "EleutherAI/pythia-410m",
     24, 1024, 16, 16, 4096, False, 50304, False, _LITGPT),
    ("Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B",
     24, 896, 14, 2, 4864, True, 151936, True, _LITGPT),
    ("Pythia-1B", "EleutherAI/pythia-1b",
     16, 2048, 8, 8, 8192, False, 50304, False, _LITGPT),
    ("TinyLlama-1.1B", "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T",
     22, 2048, 32, 4, 5632, True, 32000, False, _LITGPT),
    ("OLMo-1B", "allenai/OLMo-1B-hf",
     16, 2048, 16, 16, 8192, True, 50304, True, _LITGPT),
    ("Llama-3.2-1B", "meta-llama/Llama-3.2-1B",
     16, 2048, 32, 8, 8192, True, 128256, True, _LITGPT),
    ("Qwen2.5-1.5B", "Qwen/Qwen2.5-1.5B",
     28, 1536, 12, 2, 8960, True, 151936, True, _LITGPT),
    ("SmolLM2-1.7B", "HuggingFaceTB/SmolLM2-1.7B",
     24, 2048, 32, 32, 8192, True, 49152, True, _LITGPT),
    ("Qwen3-1.7B", "Qwen/Qwen3-1.7B-Base",
     28, 2048, 16, 8, 6144, True, 151936, True, _LITGPT),
    ("Gemma-2B", "google/gemma-2b",
     18, 2048, 8, 1, 16384, True, 256000, True, _LITGPT),
    ("Phi-2", "microsoft/phi-2",
     32, 2560, 32, 32, 10240, False, 51200, False, _LITGPT),
    ("StableLM-3B", "stabilityai/stablelm-3b-4e1t",
     32, 2560, 32, 32, 6912, True, 50304, False, _LITGPT),
    ("Qwen2.5-3B", "Qwen/Qwen2.5-3B",
     36, 2048, 16, 2, 11008, True, 151936, True, _LITGPT),
    ("Llama-3.2-3B", "meta-llama/Llama-3.2-3B",
     28, 3072, 24, 8, 8192, True, 128256, True, _LITGPT),
    ("Llama-2-7B", "meta-llama/Llama-2-7b-hf",
     32, 4096, 32, 32, 11008, True, 32000, False, _LITGPT),
    ("Mistral-7B", "mistralai/Mistral-7B-v0.1",
     32, 4096, 32, 8, 14336, True, 32000, False, _LITGPT),
    ("Qwen2.5-7B", "Qwen/Qwen2.5-7B",
     28, 3584, 28, 4, 18944, True, 152064, False, _LITGPT),
    ("Llama-3-8B", "meta-llama/Meta-Llama-3-8B",
     32, 4096, 32, 8, 14336, True, 128256, False, _LITGPT),
    ("Qwen3-8B", "Qwen/Qwen3-8B-Base",
     36, 4096, 32, 8, 12288, True, 151936, False, _LITGPT),
    ("Llama-2-13B", "meta-llama/Llama-2-13b-hf",
     40, 5120, 40, 40, 13824, True, 32000, False, _LITGPT),
    ("Qwen2.5-14B", "Qwen/Qwen2.5-14B",
     48, 5120, 40, 8, 13824, True, 152064, False, _LITGPT),
    ("Qwen3-14B", "Qwen/Qwen3-14B-Base",
     40, 5120, 40, 8, 17408, True, 151936, False, _LITGPT),
    ("Qwen2.5-32B", "Qwen/Qwen2.5-32B",
     64, 5120, 40, 8, 27648, True, 152064, False, _LITGPT),
    ("Falcon-40B", "tiiuae/falcon-40b",
     60, 8192, 128, 8, 32768, False, 65024, True, _LITGPT),
    ("Llama-3-70B", "meta-llama/Meta-Llama-3-70B",
     80, 8192, 64, 8, 28672, True, 128256, False, _LITGPT),
)
# fmt: on

OPEN_MODELS = tuple(OpenModel(*row) for row in _ROWS)


def open_model(name: str) -> OpenModel | None:
    """The model of that name, whatever its case; None if there is none."""
    for model in OPEN_MODELS:
        if model.name.lower() == name.lower():
            return model
    return None
