"""Known models as configs, with the parameters of their published checkpoints.

The count of a config is that of its checkpoint, tensor for tensor: where a model
stores more than projections and the scales of its norms (Mamba its convolution's
bias, its step's bias, A and D; RWKV the biases of its norms and its mixes), so do
our modules. A vocabulary is that of the stored embedding, padding included.
"""

import dataclasses

from arch.config import ArchitectureConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Known:
    """A published model."""

    config: ArchitectureConfig
    parameters: int  # of its checkpoint, a tied embedding once
    source: str  # of config and count: paper and checkpoint


def _llama(
    layers: int,
    hidden: int,
    heads: int,
    kv_heads: int,
    ffn_dim: int,
    vocab: int,
    *,
    tied: bool = False,
) -> ArchitectureConfig:
    grouped = kv_heads < heads
    return ArchitectureConfig(
        arch_type="grouped_query_attention" if grouped else "transformer",
        num_layers=layers,
        hidden_dim=hidden,
        num_heads=heads,
        kv_heads=kv_heads if grouped else None,
        ffn_multiplier=4.0,
        ffn_dim=ffn_dim,
        normalization="rmsnorm",
        activation="swiglu",
        position_encoding="rope",
        vocab_size=vocab,
        tie_embeddings=tied,
    ).canonical()


def _recurrent(
    arch_type: str, layers: int, hidden: int, vocab: int, *, tied: bool
) -> ArchitectureConfig:
    return ArchitectureConfig(
        arch_type=arch_type,
        num_layers=layers,
        hidden_dim=hidden,
        num_heads=1,
        ffn_multiplier=4.0,
        normalization="rmsnorm",
        activation="gelu",
        position_encoding="absolute",
        vocab_size=vocab,
        tie_embeddings=tied,
    ).canonical()


KNOWN: dict[str, Known] = {
    "Llama-2-7B": Known(
        config=_llama(32, 4096, 32, 32, 11008, 32000),
        parameters=6_738_415_616,
        source="arXiv:2307.09288, meta-llama/Llama-2-7b-hf",
    ),
    "Llama-3-8B": Known(
        config=_llama(32, 4096, 32, 8, 14336, 128256),
        parameters=8_030_261_248,
        source="arXiv:2407.21783, meta-llama/Meta-Llama-3-8B",
    ),
    "Mistral-7B": Known(
        config=_llama(32, 4096, 32, 8, 14336, 32000),
        parameters=7_241_732_096,
        source="arXiv:2310.06825, mistralai/Mistral-7B-v0.1",
    ),
    "TinyLlama-1.1B": Known(
        config=_llama(22, 2048, 32, 4, 5632, 32000),
        parameters=1_100_048_384,
        source="arXiv:2401.02385, TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T",
    ),
    "SmolLM-135M": Known(
        config=_llama(30, 576, 9, 3, 1536, 49152, tied=True),
        parameters=134_515_008,
        source="HuggingFaceTB/SmolLM-135M",
    ),
    "Mamba-130m": Known(
        # 50,277 tokens, padded to a multiple of 8.
        config=_recurrent("mamba", 24, 768, 50280, tied=True),
        parameters=129_135_360,
        source="arXiv:2312.00752, state-spaces/mamba-130m",
    ),
    "RWKV-4-169m": Known(
        config=_recurrent("rwkv", 12, 768, 50277, tied=False),
        parameters=169_342_464,
        source="arXiv:2305.13048, RWKV/rwkv-4-169m-pile",
    ),
}
