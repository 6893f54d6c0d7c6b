"""The generation config of a folder: how a model's texts begin and end."""

from collections.abc import Mapping
from pathlib import Path

from tokenizers import Tokenizer

from jaxnas.data.tokenizer import END_OF_TEXT
from jaxnas.errors import UsageError
from jaxnas.storage.files import write_json
from jaxnas.storage.inputs import read_json
from jaxnas.storage.jsonl import Json

GENERATION = "generation_config.json"


def write_generation(out: Path, ids: Mapping[str, object]) -> None:
    """A generation config that is greedy and ends at the end of the text."""
    write_json(out / GENERATION, {"do_sample": False, **ids})


def generation_config(folder: Path) -> Json:
    """What a folder's generation config says; nothing if there is none.

    Raises:
      UsageError: it is no JSON object.
    """
    path = folder / GENERATION
    if not path.is_file():
        return {}
    content = read_json(path)
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds no JSON object")
    return content


def end_tokens(folder: Path, tokenizer: Tokenizer) -> list[int]:
    """The tokens that end a text of a model folder.

    Those that its generation config names, else our end of text; none if the
    tokenizer has neither.

    Raises:
      UsageError: the generation config is no JSON object.
    """
    ids = generation_config(folder).get("eos_token_id")
    if ids is None:
        ids = tokenizer.token_to_id(END_OF_TEXT)
    ends = ids if isinstance(ids, list) else [ids]
    return [end for end in ends if type(end) is int and end >= 0]
