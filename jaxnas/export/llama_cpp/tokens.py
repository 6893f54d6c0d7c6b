"""A tokenizer as settings of a GGUF file.

llama.cpp splits a text into words by rules that have names, and knows the rule of
byte-level BPE as GPT-2 has it (`gpt-2`), the same with every digit a word of its own
(`smollm`), and those of Qwen2 and DeepSeek-Coder. Any other tokenizer is refused: it
would read other tokens.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from tokenizers import Tokenizer, pre_tokenizers

from arch import ArchitectureConfig
from jaxnas.data.tokenizer import END_OF_TEXT, load_tokenizer
from jaxnas.errors import UsageError
from jaxnas.export.generation import generation_config, write_generation
from jaxnas.export.tokens import SETTINGS, chat_template
from jaxnas.storage.files import write_json
from jaxnas.storage.jsonl import Json

TokenKeys: TypeAlias = dict[str, str | int | bool | list[str] | list[int]]

# `tokenizer.ggml.token_type`
_FILE = "tokenizer.ggml"
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5

_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_DIGITS = {"type": "Digits", "individual_digits": True}
COMPOSED = "NFC"  # of Unicode: letters and their marks as one
_WORDS_BEFORE = _BYTES | {"use_regex": False}  # the rule before it has split them


def _split(pattern: str) -> Json:
    kind = {"type": "Split", "behavior": "Isolated", "invert": False}
    return kind | {"pattern": {"Regex": pattern}}


_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_DEEPSEEK_CODER = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+")
# What splits a text -> the name of that rule.
RULES: tuple[tuple[list[Json], str], ...] = (
    ([_BYTES], "gpt-2"),
    ([_DIGITS, _BYTES], "smollm"),
    ([_split(_QWEN2), _WORDS_BEFORE], "qwen2"),
    ([*map(_split, _DEEPSEEK_CODER), _DIGITS, _WORDS_BEFORE], "deepseek-coder"),
)
# Of the BPE model: what is not so would join other pairs.
_PLAIN_BPE: Json = {
    "type": "BPE",
    "dropout": None,
    "continuing_subword_prefix": None,
    "end_of_word_suffix": None,
    "byte_fallback": False,
    "ignore_merges": False,
}
# Bytes that no UTF-8 text has; like all from 174 they are spelled as themselves.
_NEVER = {chr(byte) for byte in (0xC0, 0xC1, *range(0xF5, 0x100))}
_ROLES = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}


def token_keys(
    tokenizer: Tokenizer, config: ArchitectureConfig, folder: Path
) -> TokenKeys:
    """The settings below `tokenizer.`, by their names without it.

    Args:
      tokenizer: of the model.
      config: of the model; ids above the tokenizer's are unused tokens.
      folder: the model's: its generation config says which tokens end a text.

    Raises:
      UsageError: llama.cpp would read other tokens; the line names the setting.
    """
    content = json.loads(tokenizer.to_str())
    rule = _rule(content)
    texts, types = _vocabulary(content, config.vocab_size)
    keys: TokenKeys = {
        "ggml.model": "gpt2",
        "ggml.pre": rule,
        "ggml.tokens": texts,
        "ggml.token_type": types,
        "ggml.merges": _merges(content),
        "ggml.add_bos_token": False,
        "ggml.add_eos_token": False,
        "ggml.add_space_prefix": False,
    }
    for name, token in _special(tokenizer, folder).items():
        keys[f"ggml.{_ROLES[name]}_token_id"] = token
    template = chat_template(folder)
    return keys | ({} if template is None else {"chat_template": template})


def _rule(content: Json) -> str:
    """The name of the rule that splits texts."""
    model = content["model"]
    for name, wanted in _PLAIN_BPE.items():
        # What an older file leaves out, and an empty affix, is none.
        if (found := model.get(name) or wanted) != wanted:
            raise _refused(f"model.{name}={found!r}", repr(wanted))
    before = content.get("normalizer")
    if before is not None and before["type"] != COMPOSED:
        raise _refused(f"normalizer={before['type']!r}", f"None or {COMPOSED!r}")
    after = content.get("post_processor")
    if after is not None and after["type"] != "ByteLevel":  # which moves no token
        raise _refused(f"post_processor={after['type']!r}", "None or 'ByteLevel'")
    before = content.get("pre_tokenizer") or {"type": None}
    parts = before.get("pretokenizers", [before])
    for wanted, name in RULES:
        if len(wanted) == len(parts) and all(
            part.get(key, value) == value
            for rule, part in zip(wanted, parts, strict=True)
            for key, value in rule.items()
        ):
            return name
    found = " + ".join(str(part["type"]) for part in parts)
    known = "'ByteLevel', 'Digits + ByteLevel', Qwen2's or DeepSeek-Coder's"
    raise _refused(f"pre_tokenizer={found!r}", known)


def token_note(tokenizer: Tokenizer) -> str | None:
    """What llama.cpp does otherwise with a text that is hardly ever there."""
    if json.loads(tokenizer.to_str()).get("normalizer") is None:
        return None
    return (
        f"letters with marks apart are read so: llama.cpp does not compose them "
        f"({COMPOSED}), as this tokenizer does"
    )


def _refused(found: str, wanted: str) -> UsageError:
    return UsageError(
        f"llama.cpp would read other tokens than this tokenizer: it has {found}; "
        f"exact would be {wanted}"
    )


def _vocabulary(content: Json, size: int) -> tuple[list[str], list[int]]:
    """Texts and types of all ids below `size`."""
    vocabulary = content["model"]["vocab"]
    missing = {*pre_tokenizers.ByteLevel.alphabet()} - _NEVER - vocabulary.keys()
    if missing:
        raise _refused(f"no token for {len(missing)} bytes", "a token for each byte")
    by_id = {index: text for text, index in vocabulary.items()}
    types = dict.fromkeys(by_id, _NORMAL)
    for added in content.get("added_tokens", []):
        by_id[added["id"]] = added["content"]
        types[added["id"]] = _CONTROL if added["special"] else _USER_DEFINED
    if by_id and max(by_id) >= size:
        raise UsageError(
            f"the tokenizer has the id {max(by_id)}, the model room for {size}"
        )
    taken = set(by_id.values())
    for index in range(size):
        if index not in by_id:
            text = f"[PAD{index}]"
            while text in taken:
                text = f"[{text}]"
            by_id[index], types[index] = text, _UNUSED
    return [by_id[i] for i in range(size)], [types[i] for i in range(size)]


def _merges(content: Json) -> list[str]:
    merges = content["model"]["merges"]
    if not merges:
        raise _refused("no merges", "one at least")
    return [pair if isinstance(pair, str) else " ".join(pair) for pair in merges]


def _special(tokenizer: Tokenizer, folder: Path) -> Mapping[str, int]:
    """The ids of special tokens that there are, by their settings' names."""
    settings = generation_config(folder)
    end = tokenizer.token_to_id(END_OF_TEXT)
    found = {}
    for name in _ROLES:
        value = settings.get(name) if settings else end
        first = value[0] if isinstance(value, list) and value else value
        if type(first) is int and 0 <= first < tokenizer.get_vocab_size():
            found[name] = first
    return found


def tokenizer_of(settings: Mapping[str, Any], size: int) -> Tokenizer:
    """The tokenizer that a file's settings describe: `token_keys` read back.

    Args:
      settings: of the file, by their whole names.
      size: tokens of the model.

    Raises:
      UsageError: it is no byte-level BPE, splits texts by a rule unknown here, or
        adds tokens to them; or a setting is missing.
    """
    kind, name = (settings.get(f"{_FILE}.{key}") for key in ("model", "pre"))
    rules = {known: rule for rule, known in RULES}
    if kind != "gpt2" or name not in rules:
        raise UsageError(
            f"{_FILE}.model={kind!r} with pre={name!r}: only 'gpt2' with "
            f"{' or '.join(map(repr, rules))} can be read"
        )
    for added in ("add_bos_token", "add_eos_token"):
        if settings.get(f"{_FILE}.{added}"):
            raise UsageError(f"{_FILE}.{added}=True: ours adds no token to a text")
    texts, types = _list(settings, "tokens", str), _list(settings, "token_type", int)
    merges = _list(settings, "merges", str)
    if len(types) != len(texts):
        raise UsageError(f"{_FILE}: {len(texts)} tokens have {len(types)} types")
    for role in _ROLES.values():
        token = settings.get(f"{_FILE}.{role}_token_id")
        if token is not None and token not in range(len(texts)):
            raise UsageError(f"{_FILE}.{role}_token_id={token!r} is no token's")
    used = [
        (i, text, kind)
        for i, (text, kind) in enumerate(zip(texts, types, strict=True))
        if kind != _UNUSED
    ]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    content = {
        "version": "1.0",
        "added_tokens": [
            {"id": i, "content": text, **flags, "special": kind == _CONTROL}
            for i, text, kind in used
            if kind in (_CONTROL, _USER_DEFINED)
        ],
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"trim_offsets": True} | part for part in rules[name]],
        },
        "decoder": {"trim_offsets": True} | _BYTES,
        "model": {
            **_PLAIN_BPE,
            "vocab": {text: i for i, text, _ in used},
            "merges": [merge.split(" ", 1) for merge in merges],
        },
    }
    try:
        tokenizer = load_tokenizer(json.dumps(content))
    except Exception as error:  # the library raises bare ones
        raise UsageError(f"the tokenizer cannot be read: {error}") from None
    if tokenizer.get_vocab_size() > size:
        raise UsageError(f"the tokenizer has more tokens than the model's {size}")
    return tokenizer


def _list(settings: Mapping[str, Any], name: str, kind: type) -> list:
    """A setting that is a list of this type.

    Raises:
      UsageError: it is missing, or no such list.
    """
    found = settings.get(f"{_FILE}.{name}")
    if found is None:
        raise UsageError(f"{_FILE}.{name} is missing")
    if not isinstance(found, list) or not all(type(one) is kind for one in found):
        raise UsageError(f"{_FILE}.{name} is no list of {kind.__name__}")
    return found


def write_kept(settings: Mapping[str, Any], folder: Path) -> None:
    """What begins and ends texts, and the chat template, for exports to come."""
    ids = {
        name: settings.get(f"{_FILE}.{role}_token_id") for name, role in _ROLES.items()
    }
    write_generation(folder, ids)
    texts = settings[f"{_FILE}.tokens"]
    named = {
        name.removesuffix("_id"): texts[i] for name, i in ids.items() if i is not None
    }
    template = settings.get("tokenizer.chat_template")
    about = {"chat_template": template} if isinstance(template, str) else {}
    about |= {"tokenizer_class": "PreTrainedTokenizerFast", **named}
    write_json(folder / SETTINGS, about)
