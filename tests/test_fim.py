"""Fill in the middle: the tokens, the stream, and the cursor."""

import json

import numpy as np
import pytest
from corpus import write_corpus

from jaxnas.data import END_OF_TEXT, END_OF_TEXT_ID, DataError, encode, read_source
from jaxnas.data.fim import (
    SPELLINGS,
    TOKENS,
    around,
    fim_ids,
    fim_names,
    fim_tokens,
    with_fim,
)
from jaxnas.data.tokenizer import (
    end_of_text,
    load_tokenizer,
    special_reader,
    token_bytes,
    train_tokenizer,
)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = write_corpus(tmp_path_factory.mktemp("fim") / "code", files=20)
    files = read_source(f"folder:{folder}").files
    return [file.text for file in files] + ["naïve = '→'\n" * 40]


@pytest.fixture(scope="module")
def plain(texts):
    return train_tokenizer(texts, 400)


@pytest.fixture(scope="module")
def tokenizer(plain):
    return with_fim(plain)


def test_three_tokens_take_the_place_of_the_last_merges(plain, tokenizer, texts):
    size = plain.get_vocab_size()
    assert tokenizer.get_vocab_size() == size
    assert sorted(fim_ids(tokenizer)) == [size - 3, size - 2, size - 1]
    assert fim_ids(plain) is None
    assert with_fim(tokenizer) is tokenizer
    before, after = plain.get_vocab(), tokenizer.get_vocab()
    assert {text for text in before if before[text] < size - 3} == set(after) - set(
        TOKENS
    )
    for text in texts:
        ids = tokenizer.encode(text).ids
        assert tokenizer.decode(ids) == text
        assert max(ids) < size - 3
    # Spelled out in a file they are text.
    assert set(fim_ids(tokenizer)).isdisjoint(tokenizer.encode("".join(TOKENS)).ids)
    sizes = token_bytes(tokenizer)
    assert sizes[size - 3 :].tolist() == [0, 0, 0]
    np.testing.assert_array_equal(sizes[: size - 3], token_bytes(plain)[: size - 3])
    again = load_tokenizer(tokenizer.to_str())
    assert again.encode(texts[0]).ids == tokenizer.encode(texts[0]).ids
    assert fim_ids(again) == fim_ids(tokenizer)


def test_bytes_alone_have_nothing_to_give_up():
    with pytest.raises(DataError, match="no merges to give up"):
        with_fim(train_tokenizer(["ab"], 257))


def parts_of(stream, ids):
    """Each piece of the stream that was rearranged: prefix, suffix, middle."""
    found, at = [], 0
    while at < len(stream):
        if stream[at] == ids[0]:
            end = at + int(np.flatnonzero(stream[at:] == END_OF_TEXT_ID)[0])
            piece = stream[at + 1 : end].tolist()
            suffix, middle = piece.index(ids[1]), piece.index(ids[2])
            found.append(
                (piece[:suffix], piece[suffix + 1 : middle], piece[middle + 1 :])
            )
            at = end
        at += 1
    return found


def test_a_rearranged_piece_is_all_of_its_text(texts, tokenizer):
    tokens = encode(tokenizer, texts)
    ids = fim_ids(tokenizer)
    stream = fim_tokens(tokens, tokenizer, 1.0, 32, seed=3)
    found = parts_of(stream, ids)
    decode = tokenizer.decode
    whole = "".join(
        decode(prefix) + decode(middle) + decode(suffix)
        for prefix, suffix, middle in found
    )
    # A piece may end within a character that has several bytes.
    wanted = "".join(text for text in texts[:-1])
    assert whole.startswith(wanted)
    assert len(found) > len(tokens) / 33
    assert any(len(middle) > 5 for _, _, middle in found)


@pytest.mark.parametrize("length", [7, 8, 9])
def test_no_character_is_divided_and_no_piece_is_empty(tokenizer, length):
    """A piece ends inside a character of three tokens, or before the end of text."""
    tokens = encode(tokenizer, ["漢字" * 20, "é" * 4, ""])
    stream = fim_tokens(tokens, tokenizer, 1.0, length, seed=0)
    found = parts_of(stream, fim_ids(tokenizer))
    assert len(found) > 5
    for parts in found:
        assert any(parts)
        assert not any("\ufffd" in tokenizer.decode(part) for part in parts)


def test_a_share_is_rearranged_and_the_rest_stays(texts, tokenizer):
    tokens = encode(tokenizer, texts)
    np.testing.assert_array_equal(fim_tokens(tokens, tokenizer, 0.0, 32, 0), tokens)
    half = fim_tokens(tokens, tokenizer, 0.5, 32, seed=0)
    share = len(parts_of(half, fim_ids(tokenizer))) * 32 / len(tokens)
    assert 0.4 < share < 0.65  # the last piece of a file is short
    np.testing.assert_array_equal(half, fim_tokens(tokens, tokenizer, 0.5, 32, 0))
    assert len(half) != len(fim_tokens(tokens, tokenizer, 0.5, 32, 1))


@pytest.mark.parametrize(
    ("before", "after", "room", "wanted"),
    [
        ([1, 2, 3], [4, 5], 20, [90, 1, 2, 3, 91, 4, 5, 92]),
        ([1, 2, 3, 4], [5, 6, 7, 8], 7, [90, 2, 3, 4, 91, 5, 92]),
        ([1], [5, 6, 7, 8], 7, [90, 1, 91, 5, 6, 7, 92]),
        ([1, 2, 3], [], 5, [90, 2, 3, 91, 92]),
    ],
)
def test_both_sides_of_a_cursor_share_the_room(before, after, room, wanted):
    found = around(before, after, (90, 91, 92), room)
    assert found == wanted
    assert len(found) <= room


@pytest.mark.parametrize("names", SPELLINGS, ids=lambda names: names[0])
def test_tokens_of_others_are_found_by_their_spelling(plain, names):
    tokenizer = load_tokenizer(plain.to_str())
    tokenizer.add_special_tokens(list(names[:2]))
    assert fim_ids(tokenizer) is None
    tokenizer.add_special_tokens([names[2]])
    size = plain.get_vocab_size()
    assert fim_names(tokenizer) == names
    assert fim_ids(tokenizer) == (size, size + 1, size + 2)
    assert with_fim(tokenizer) is tokenizer
    assert around([1], [2], fim_ids(tokenizer), 9) == [size, 1, size + 1, 2, size + 2]


def test_the_end_of_a_text_is_the_tokenizer_s_own(plain, texts):
    content = plain.to_str().replace(END_OF_TEXT, "</s>")
    other = load_tokenizer(content)
    other.add_special_tokens(list(TOKENS))
    assert end_of_text(other) == END_OF_TEXT_ID
    other.add_special_tokens([END_OF_TEXT])  # as GPT-2 has it: the last one
    last = other.get_vocab_size() - 1
    assert end_of_text(other) == last > 0
    tokens = encode(other, texts[:4])
    assert (tokens == last).sum() == 4
    stream = fim_tokens(tokens, other, 1.0, 64, seed=0)
    ids = set(stream.tolist())
    assert last in ids
    assert END_OF_TEXT_ID not in ids
    assert token_bytes(other)[last] == 0
    nothing = load_tokenizer(plain.to_str().replace(END_OF_TEXT, "[nothing]"))
    with pytest.raises(DataError, match="no token that ends a text"):
        encode(nothing, texts[:1])


def test_special_tokens_can_be_spelled_out(tokenizer):
    text = f"{TOKENS[0]}a = {TOKENS[1]}{TOKENS[2]}"
    first, *middle, second, third = special_reader(tokenizer)(text)
    assert (first, second, third) == fim_ids(tokenizer)
    assert tokenizer.decode(middle) == "a = "
    # It stays text everywhere else.
    assert set(fim_ids(tokenizer)).isdisjoint(tokenizer.encode(text).ids)


def test_more_tokens_than_16_bits_hold(plain, texts):
    content = json.loads(plain.to_str())
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    content["added_tokens"] += [
        {"id": 150_000 + n, "content": name, **flags, "special": True}
        for n, name in enumerate(("<|end_of_text|>", *TOKENS))
    ]
    for one in content["added_tokens"][1:]:
        content["model"]["vocab"][one["content"]] = one["id"]
    tokenizer = load_tokenizer(json.dumps(content).replace(END_OF_TEXT, "[other]"))
    tokens = encode(tokenizer, texts)
    assert (tokens.dtype, tokens.max()) == (np.uint32, 150_000)
    assert (tokens == 150_000).sum() == len(texts)
    stream = fim_tokens(tokens, tokenizer, 0.5, 64, seed=0)
    assert (stream.dtype, stream.max()) == (np.uint32, 150_003)
    assert token_bytes(tokenizer).shape == (150_004,)
