"""Which of llama.cpp's architectures computes a model exactly, as data.

llama.cpp fixes the activation by the architecture's name and reads no setting for
it: a file under the wrong name loads without a word and computes another function.
So what is not in this table is refused. `arcee` is the square of ReLU alone,
`starcoder2` GELU, `llama` and `stablelm` SiLU, `gemma` GELU with one matrix for
both embeddings.
"""

from arch import ArchitectureConfig
from jaxnas.errors import UsageError
from jaxnas.export.choice import refusal
from jaxnas.export.llama_cpp.architecture import Architecture
from jaxnas.export.llama_cpp.attention import (
    ARCEE,
    GEMMA,
    GPT2,
    GPT_NEOX,
    LLAMA,
    MPT,
    NEMOTRON,
    PHI2,
    QWEN2,
    REFACT,
    STABLE_LM,
    STARCODER2,
)
from jaxnas.export.llama_cpp.mamba import MAMBA

ARCHITECTURES = (
    QWEN2,
    LLAMA,
    GEMMA,
    ARCEE,
    STARCODER2,
    STABLE_LM,
    NEMOTRON,
    REFACT,
    GPT2,
    GPT_NEOX,
    PHI2,
    MPT,
    MAMBA,
)


def architecture_for(config: ArchitectureConfig) -> Architecture:
    """The architecture that computes the config's function.

    Raises:
      UsageError: none does; the line names the fields, and what would do.
    """
    config = config.canonical()
    for architecture in ARCHITECTURES:
        if not architecture.misfits(config):
            return architecture
    why = refusal(config, ARCHITECTURES, "llama.cpp architecture")
    raise UsageError(f"{why} (the command ship searches only what llama.cpp runs)")
