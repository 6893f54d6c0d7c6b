"""What goes with the weights so that `transformers` reads and writes text.

`<|endoftext|>` ends a text and comes before one: in training the text before
ends there. Spelled out in a text it is text, as in training. What an imported
model brought along is kept as it was.
"""

from collections.abc import Mapping
from pathlib import Path

from tokenizers import Tokenizer

from jaxnas.data.tokenizer import END_OF_TEXT
from jaxnas.export.generation import (
    GENERATION,
    generation_config,
    write_generation,
)
from jaxnas.export.model_folder import TOKENIZER
from jaxnas.storage.files import write_json, write_whole
from jaxnas.storage.inputs import JSON_BYTES, read_bytes, read_json, read_text
from jaxnas.storage.jsonl import Json

# Version 5 of transformers writes the chat template as a file of its own.
TEMPLATE = "chat_template.jinja"
SETTINGS, _SPECIAL = "tokenizer_config.json", "special_tokens_map.json"
_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def write_tokens(
    source: Path, tokenizer: Tokenizer, length: int, out: Path
) -> Mapping[str, object]:
    """Writes the tokenizer and the generation config of a model folder.

    Args:
      source: the model's folder.
      tokenizer: the one in it.
      length: tokens that the model can read.
      out: where to.

    Returns:
      The ids of the tokens that begin, end and pad texts, null where there is
      none, by the names of their settings.
    """
    _copy(TOKENIZER, source, out)
    if keep_tokens(source, out):
        return special_ids(generation_config(out))
    end = tokenizer.token_to_id(END_OF_TEXT)
    roles = ("bos_token", "eos_token", "pad_token")
    special = {} if end is None else dict.fromkeys(roles, END_OF_TEXT)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": length,
        "padding_side": "left",  # what is generated follows the text
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,
        **special,
    }
    write_json(out / SETTINGS, settings)
    write_json(out / _SPECIAL, special)
    ids = dict.fromkeys(_IDS, end)
    write_generation(out, ids)
    return ids


def keep_tokens(source: Path, out: Path) -> bool:
    """Copies the settings of another's tokenizer, if the source has them all."""
    if not all((source / name).is_file() for name in (SETTINGS, GENERATION)):
        return False
    generation_config(source)  # before anything is copied
    copy_settings(source, out)
    _copy(GENERATION, source, out)
    return True


def copy_settings(source: Path, out: Path) -> None:
    """Copies what there is of the settings of another's tokenizer."""
    for name in (SETTINGS, _SPECIAL, TEMPLATE):
        if (source / name).is_file():
            _copy(name, source, out)


def _copy(name: str, source: Path, out: Path) -> None:
    write_whole(out / name, read_bytes(source / name, JSON_BYTES))


def chat_template(folder: Path) -> str | None:
    """The chat template that a folder holds, as a file or in its settings.

    Raises:
      UsageError: it cannot be read.
    """
    if (folder / TEMPLATE).is_file():
        return read_text(folder / TEMPLATE)
    if not (folder / SETTINGS).exists():
        return None
    content = read_json(folder / SETTINGS)
    found = content.get("chat_template") if isinstance(content, dict) else None
    return found if isinstance(found, str) else None


def special_ids(content: Json) -> Mapping[str, object]:
    """The ids of special tokens that a config holds, null where it has none."""
    return {name: content.get(name) for name in _IDS}
