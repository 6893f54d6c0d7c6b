import random

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, processors

from jaxnas.data.sources import DataError
from jaxnas.data.tokenizer import (
    END_OF_TEXT,
    END_OF_TEXT_ID,
    encode,
    inner_tokens,
    load_tokenizer,
    token_bytes,
    train_tokenizer,
)

CORPUS = [
    "def add(left, right):\n    return left + right\n" * 3,
    "for item in items:\n\tif item is None:\r\n\t\tcontinue\r\n",
    "text = 'naïve café 水 🦆 \u200d\ufeff\u0301'\n",
]
ODD = [
    "\ufeff# byte order mark",
    "\r\n\t \r \x0b\x0c\x1c\x85\u2028\u2029",
    "   leading and trailing   ",
    "zalgo: e\u0301\u0302\u0303, flags: 🇫🇷🇯🇵, family: 👩\u200d👩\u200d👧",
    "\U0010ffff\ue000\u0001\x7f",
    f"TOKEN = '{END_OF_TEXT}'",
    "a" * 5000,
    " " * 5000 + "x",
    "",
]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(CORPUS, 280)


def random_text(seed: int) -> str:
    draw = random.Random(seed)
    planes = [range(1, 128), range(128, 0xD800), range(0xE000, 0x110000)]
    return "".join(chr(draw.choice(draw.choice(planes))) for _ in range(500))


@pytest.mark.parametrize("text", [*CORPUS, *ODD, *map(random_text, range(5))])
def test_decoding_gives_the_text_back(tokenizer, text):
    tokens = encode(tokenizer, [text])
    assert tokens[-1] == END_OF_TEXT_ID
    assert END_OF_TEXT_ID not in tokens[:-1]
    assert tokenizer.decode(tokens[:-1].tolist()) == text
    assert token_bytes(tokenizer)[tokens].sum() == len(text.encode())


def test_added_tokens_are_their_text(tokenizer):
    own = load_tokenizer(tokenizer.to_str())
    own.add_tokens(["        ", "naïve!"])
    own.add_special_tokens(["<mark>"])
    text = "def f(naïve!):\n        return 水\n"
    tokens = encode(own, [text])
    assert own.token_to_id("        ") in tokens
    assert token_bytes(own)[tokens].sum() == len(text.encode())
    assert token_bytes(own)[own.token_to_id("<mark>")] == 0


def test_a_vocabulary_of_words_and_bytes_is_counted_as_text():
    """As SentencePiece's are spelled."""
    spelled = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words = ["▁", "d", "e", "f", "x", "▁d", "▁de", "▁def", "▁x"]
    vocabulary = {token: i for i, token in enumerate(spelled + words)}
    merges = [("▁", "d"), ("▁d", "e"), ("▁de", "f"), ("▁", "x")]
    model = models.BPE(vocabulary, merges, byte_fallback=True, unk_token="<unk>")
    own = Tokenizer(model)
    own.normalizer = normalizers.Replace(" ", "▁")
    own.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    own.add_special_tokens(["<unk>", "<s>", "</s>"])
    start = [("<s>", vocabulary["<s>"])]
    own.post_processor = processors.TemplateProcessing("<s> $A", None, start)
    text = " def\n\n x 水"
    tokens = encode(load_tokenizer(own.to_str()), [text])
    assert vocabulary["<s>"] == tokens[0]
    assert inner_tokens(own, text) == tokens[1:-1].tolist()
    assert token_bytes(own)[tokens].sum() == len(text.encode())


def test_texts_follow_each_other_with_the_end_of_text_after_each(tokenizer):
    texts = [*CORPUS, *ODD, *map(random_text, range(40))]
    tokens = encode(tokenizer, texts)
    assert tokens.dtype == np.uint16
    ends = np.flatnonzero(tokens == END_OF_TEXT_ID)
    assert ends.size == len(texts)
    assert ends[-1] == tokens.size - 1
    parts = np.split(tokens, ends + 1)[:-1]
    assert [tokenizer.decode(part[:-1].tolist()) for part in parts] == texts
    assert encode(tokenizer, []).shape == (0,)


def test_the_alphabet_is_every_byte(tokenizer):
    sizes = token_bytes(tokenizer)
    assert tokenizer.token_to_id(END_OF_TEXT) == END_OF_TEXT_ID
    assert tokenizer.get_vocab_size() == sizes.size == 280
    assert sizes[0] == 0
    assert (sizes[1:257] == 1).all()
    assert (sizes[257:] > 1).all()


def test_a_small_corpus_gives_fewer_tokens_than_asked():
    none = train_tokenizer([], 257)
    assert none.get_vocab_size() == 257
    few = train_tokenizer(["abab xyz"], 1000)
    # Only the pair "ab" occurs twice; what is left of it then does not.
    assert few.get_vocab_size() == 258
    assert few.id_to_token(257) == "ab"


def test_training_is_the_same_each_time_and_in_any_order():
    texts = [random_text(seed)[:50] + CORPUS[seed % 3] for seed in range(30)]
    first = train_tokenizer(texts, 400).to_str()
    assert train_tokenizer(texts, 400).to_str() == first
    assert train_tokenizer(texts[::-1], 400).to_str() == first


def test_saved_and_loaded_it_encodes_the_same(tokenizer, tmp_path):
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer((tmp_path / "tokenizer.json").read_text())
    np.testing.assert_array_equal(encode(loaded, ODD), encode(tokenizer, ODD))
    plain = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert plain.encode(CORPUS[0]).ids == tokenizer.encode(CORPUS[0]).ids
    assert plain.encode(END_OF_TEXT).ids == [END_OF_TEXT_ID]


@pytest.mark.parametrize("vocab_size", [-1, 0, 256, 65_537])
def test_vocab_size_has_bounds(vocab_size):
    with pytest.raises(DataError) as error:
        train_tokenizer(CORPUS, vocab_size)
    assert str(error.value) == (
        "vocab_size must be from 257 (256 bytes and the end of text) to 65536,"
        f" got {vocab_size}"
    )
