"""A Modelfile: what ollama needs beside a GGUF file.

The prompt goes to the model as it is, and with what stands behind the cursor where
the tokenizer has tokens for that; nothing is punished for being repeated, as code is.
"""

from tokenizers import Tokenizer

from arch import ArchitectureConfig
from jaxnas.data.fim import fim_names
from jaxnas.data.tokenizer import END_OF_TEXT

MODELFILE = "Modelfile"


def modelfile(
    file: str, config: ArchitectureConfig, tokenizer: Tokenizer, chat: bool
) -> str:
    """The text, for `ollama create NAME -f Modelfile`.

    Args:
      file: name of the GGUF file beside it.
      config: of the model.
      tokenizer: of the model.
      chat: the file holds a chat template, which ollama takes instead of ours.
    """
    lines = [f"FROM ./{file}"]
    if not chat:
        lines.append(f'TEMPLATE """{_template(tokenizer)}"""')
    lines += [
        f"PARAMETER num_ctx {config.max_seq_length}",
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1",
    ]
    if tokenizer.token_to_id(END_OF_TEXT) is not None:
        lines.append(f'PARAMETER stop "{END_OF_TEXT}"')
    return "\n".join(lines) + "\n"


def _template(tokenizer: Tokenizer) -> str:
    if (names := fim_names(tokenizer)) is None:
        return "{{ .Prompt }}"
    before, behind, middle = names
    filled = f"{before}{{{{ .Prompt }}}}{behind}{{{{ .Suffix }}}}{middle}"
    return f"{{{{ if .Suffix }}}}{filled}{{{{ else }}}}{{{{ .Prompt }}}}{{{{ end }}}}"
