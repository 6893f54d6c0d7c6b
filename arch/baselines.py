"""The named reference configs that searches and reports compare against."""

from arch.config import ArchitectureConfig

BASELINES: dict[str, ArchitectureConfig] = {
    "gpt2-like": ArchitectureConfig(
        arch_type="transformer",
        num_layers=6,
        hidden_dim=384,
        num_heads=6,
        ffn_multiplier=4.0,
        normalization="layernorm",
        activation="gelu",
        position_encoding="absolute",
    ),
    "llama-like": ArchitectureConfig(
        arch_type="transformer",
        num_layers=6,
        hidden_dim=512,
        num_heads=8,
        ffn_multiplier=2.5,
        normalization="rmsnorm",
        activation="swiglu",
        position_encoding="rope",
    ),
    "ultra-small": ArchitectureConfig(
        arch_type="transformer",
        num_layers=4,
        hidden_dim=256,
        num_heads=4,
        ffn_multiplier=2.0,
        normalization="rmsnorm",
        activation="silu",
        position_encoding="rope",
        quantization="int8",
        pruning_ratio=0.4,
    ),
    # Heads, feed-forward, activation and positions are not Mamba's: canonical.
    "mamba": ArchitectureConfig(
        arch_type="mamba",
        num_layers=6,
        hidden_dim=512,
        num_heads=1,
        ffn_multiplier=4.0,
        normalization="rmsnorm",
        activation="gelu",
        position_encoding="absolute",
    ),
}
