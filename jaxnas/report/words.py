"""Architectures and phases in words."""

from collections.abc import Mapping, Sequence

from arch import ArchitectureConfig
from arch.families import USES
from jaxnas.config import Settings

# (field, how it is said); what a reader knows by its value needs no label.
_WORDS = (
    ("arch_type", "{}"),
    ("num_layers", "L{}"),
    ("hidden_dim", "H{}"),
    ("num_heads", "heads {}"),
    ("kv_heads", "kv heads {}"),
    ("attention_dim", "attention of {}"),
    ("inner_dim", "inner {}"),
    ("ffn_multiplier", "FFN {:g}"),
    ("ffn_dim", "FFN of {}"),
    ("normalization", "{}"),
    ("activation", "{}"),
    ("position_encoding", "{}"),
    ("attention_dropout", "attention dropout {:g}"),
    ("residual_dropout", "dropout {:g}"),
    ("quantization", "{}"),
    ("pruning_ratio", "pruned {:g}"),
    ("tie_embeddings", "tied"),
    ("norm_epsilon", "epsilon {:g}"),
    ("rope_theta", "theta {:g}"),
    ("rope_scaling", "rope scaling {:g}"),
    ("qkv_bias", "qkv biases"),
    ("biases", "biases"),
    ("tanh_gelu", "tanh gelu"),
    ("learned_positions", "learned positions"),
    ("sliding_window", "window of {}"),
    ("rotary_dim", "{} channels rotated"),
    ("parallel_residual", "parallel residual"),
    ("shared_norm", "one norm a layer"),
    ("head_bias", "head bias"),
)


def describe(config: ArchitectureConfig) -> str:
    """A candidate in a line: every gene that its family uses and that is not 0."""
    fields = config.to_dict()
    repeated = "ffn_multiplier" if config.ffn_dim else None  # it is overridden
    uses = USES[config.arch_type]
    return " ".join(
        words.format(fields[name])
        for name, words in _WORDS
        if name in uses and fields.get(name) and name != repeated
    )


def phases_in_words(config: Settings) -> str:
    """1600, then 3200 windows of 64 tokens; fast 3200 x 2 epochs, then full ..."""
    words = []
    for name, phase in config.named_phases().items():
        length = f"{phase.samples}"
        if phase.epochs > 1:
            length += f" x {phase.epochs} epochs"
        named = not name[0].isdigit() and len(config.named_phases()) > 1
        words.append(f"{name} {length}" if named else length)
    return f"{', then '.join(words)} windows of {config.window} tokens"


def told_apart(
    configs: Sequence[Mapping[str, object]],
) -> tuple[list[str], list[list[str]]]:
    """What all the configs share, and what is each one's own.

    A field says nothing of a config of a family that does not read it, or where it
    is 0 or not set.

    Args:
      configs: as `ArchitectureConfig.to_dict` gives them.

    Returns:
      The shared words, and for each config its others.
    """

    def words(config: Mapping[str, object], of_shared: bool) -> list[str]:
        return [
            said.format(config[name])
            for name, said in _WORDS
            if reads(config, name) and (name in shared) == of_shared
        ]

    def reads(config: Mapping[str, object], name: str) -> bool:
        repeated = name == "ffn_multiplier" and config["ffn_dim"] is not None
        told = bool(config.get(name)) and not repeated
        return told and name in USES[str(config["arch_type"])]

    shared = {
        name
        for name, _ in _WORDS
        if all(reads(config, name) for config in configs)
        and len({config[name] for config in configs}) == 1 < len(configs)
    }
    common = words(configs[0], True) if configs else []
    return common, [words(config, False) for config in configs]
