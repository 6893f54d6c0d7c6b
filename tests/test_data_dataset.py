import itertools
import json
import os
import random
import re
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from jaxnas.data import dataset
from jaxnas.data.dataset import MIN_TOKENS, prepare, windows
from jaxnas.data.deduplicate import deduplicate
from jaxnas.data.named import read_source
from jaxnas.data.sources import DataError
from jaxnas.data.split import SPLITS, split, split_of
from jaxnas.storage import cache

WORDS = [f"name{i}" for i in range(300)]


def program(seed: int, lines: int = 40) -> str:
    draw = random.Random(seed)
    pick = lambda: draw.choice(WORDS)
    return "".join(f"{pick()} = {pick()} + {pick()}\n" for _ in range(lines))


def program_in(name: str, text: str) -> str:
    """The text with a last line that puts it in the split of this name."""
    for number in range(1000):
        tried = f"{text}# {number}\n"
        if split_of(dataset._hash(tried)) == name:
            return tried
    raise AssertionError(f"no last line leads to {name}")


@pytest.fixture
def folder(tmp_path):
    """40 programs, some in each split, and an edited copy of one."""
    root = tmp_path / "code"
    root.mkdir()
    for seed in range(40):
        name = SPLITS[seed % 4] if seed % 4 < 3 else "train"
        (root / f"{seed}.py").write_text(program_in(name, program(seed)))
    (root / "copy.py").write_text(program(0) + "# an edit\n")
    (root / "notes.txt").write_text("left out")
    return root


def same(one, other):
    for name in (*SPLITS, "token_bytes"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.tokenizer.to_str() == other.tokenizer.to_str()
    assert one.describe() == other.describe()


def test_the_splits_hold_the_files_texts(folder, tmp_path):
    data = prepare(f"folder:{folder}", 400, tmp_path / "cache")
    parts = split(deduplicate(read_source(f"folder:{folder}").files).kept)
    for name in SPLITS:
        tokens = getattr(data, name)
        texts = [file.text for file in parts[name]]
        ends = np.flatnonzero(tokens == 0)
        cut = np.split(tokens, ends + 1)[:-1]
        assert [data.tokenizer.decode(part[:-1].tolist()) for part in cut] == texts
        assert data.token_bytes[tokens].sum() == sum(len(t.encode()) for t in texts)


def texts_of(data, name):
    """The texts of a split, in their order."""
    tokens = getattr(data, name)
    cut = np.split(tokens, np.flatnonzero(tokens == 0) + 1)[:-1]
    return [data.tokenizer.decode(part[:-1].tolist()) for part in cut]


def test_sources_are_read_together_each_as_often_as_its_weight_says(folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for seed in range(100, 120):
        (other / f"{seed}.py").write_text(program_in("train", program(seed)))
    held = program_in("test", program(200))
    (other / "held.py").write_text(held)
    (other / "copy.py").write_text((folder / "0.py").read_text())
    spec = f"folder:{folder}; folder:{other}+weight:2.5"
    data = prepare(spec, 400, tmp_path / "cache")
    facts = data.describe()
    assert (facts["files_read"], facts["exact_duplicates"]) == (41 + 22, 1)
    assert facts["left_out"] == {"without a source suffix": 1}
    counts = Counter(texts_of(data, "train"))
    own = {path.read_text() for path in folder.glob("*.py")}
    others = {path.read_text() for path in other.glob("1*.py")}
    copied = (folder / "0.py").read_text()
    assert {counts[text] for text in own - {copied} if text in counts} == {1}
    assert set(counts) <= own | others
    times = [counts[text] for text in others]
    assert set(times) == {2, 3}  # by their contents: about as many of each
    assert 5 <= times.count(3) <= 15
    # What comes again is not beside itself; what is held out comes once.
    train = texts_of(data, "train")
    assert all(one != next_ for one, next_ in itertools.pairwise(train))
    assert texts_of(data, "test").count(held) == 1
    # Other weights are another entry of the cache, other names are not.
    again = prepare(spec, 400, tmp_path / "cache")
    same(again, data)
    even = prepare(f"folder:{folder};folder:{other}", 400, tmp_path / "cache")
    assert max(Counter(texts_of(even, "train")).values()) == 1
    # With other weights it is another corpus to train on: a resume refuses it.
    assert even.corpus_hash != data.corpus_hash
    # Of a file in both the greater weight counts, whatever the folders are called.
    copied = (folder / "0.py").read_text()
    assert Counter(texts_of(data, "train"))[copied] in (2, 3)


def test_more_than_is_held_in_memory_is_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "LINES_BYTES", 100_000)
    with pytest.raises(DataError, match="as often as their weights say"):
        prepare(f"folder:{folder}+weight:9", 400, tmp_path / "cache")


def test_of_a_weight_below_1_some_files_are_read(folder, tmp_path):
    whole = prepare(f"folder:{folder}", 400, tmp_path / "cache")
    half = prepare(f"folder:{folder}+weight:0.5", 400, tmp_path / "cache")
    every, some = (texts_of(data, "train") for data in (whole, half))
    assert set(some) < set(every)
    assert 0.2 < len(some) / len(every) < 0.8
    assert texts_of(half, "test") == texts_of(whole, "test")


def test_describe_is_a_manifest(folder, tmp_path):
    data = prepare(f"folder:{folder}", 400, tmp_path / "cache")
    facts = json.loads(json.dumps(data.describe()))
    assert facts["source"] == f"folder:{folder}"
    assert facts["left_out"] == {"without a source suffix": 1}
    assert (facts["files_read"], facts["files_kept"]) == (41, 40)
    assert (facts["exact_duplicates"], facts["near_duplicates"]) == (0, 1)
    assert sum(part["files"] for part in facts["splits"].values()) == 40
    assert sum(part["bytes"] for part in facts["splits"].values()) == facts["bytes"]
    for name in SPLITS:
        assert facts["splits"][name]["tokens"] == getattr(data, name).size
    assert facts["vocab_size"] == data.vocab_size == data.token_bytes.size
    assert data.vocab_size == data.tokenizer.get_vocab_size() <= 400
    assert re.fullmatch("[0-9a-f]{64}", facts["corpus_hash"])


def test_names_and_order_do_not_matter(folder, tmp_path):
    first = prepare(f"folder:{folder}", 300, tmp_path / "one")
    for number, path in enumerate(sorted(folder.glob("*.py"), reverse=True)):
        path.rename(folder / f"moved{number}.pyi")
    second = prepare(f"folder:{folder}", 300, tmp_path / "two")
    same(first, second)


def test_the_tokenizer_sees_the_training_split_only(folder, tmp_path):
    secret = "qzxjqzxj = qzxjqzxj(qzxjqzxj)\n" * 50
    merged = {}
    for name in SPLITS:
        (folder / "secret.py").write_text(program_in(name, secret))
        data = prepare(f"folder:{folder}", 1000, tmp_path / "cache")
        merged[name] = any("qzx" in token for token in data.tokenizer.get_vocab())
    assert merged == {"train": True, "validation": False, "test": False}


def test_a_second_call_reads_the_cache(folder, tmp_path, monkeypatch):
    first = prepare(f"folder:{folder}", 300, tmp_path / "cache")

    def build(*_):
        raise AssertionError("built again")

    monkeypatch.setattr(dataset, "_build", build)
    same(first, prepare(f"folder:{folder}", 300, tmp_path / "cache"))
    with pytest.raises(AssertionError, match="built again"):
        prepare(f"folder:{folder}", 301, tmp_path / "cache")
    (folder / "0.py").write_text("changed")
    with pytest.raises(AssertionError, match="built again"):
        prepare(f"folder:{folder}", 300, tmp_path / "cache")


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied"])
def test_a_damaged_entry_is_built_again(folder, tmp_path, damage):
    first = prepare(f"folder:{folder}", 300, tmp_path / "cache")
    (entry,) = (tmp_path / "cache" / "data").iterdir()
    whole = entry.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    entry.write_bytes(
        {"cut": whole[:middle], "flipped": flipped, "emptied": b""}[damage]
    )
    same(first, prepare(f"folder:{folder}", 300, tmp_path / "cache"))
    assert entry.read_bytes() == whole


def test_a_killed_writer_leaves_nothing_that_is_read(folder, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare(f"folder:{folder}", 300, tmp_path / "cache")
    (left,) = (tmp_path / "cache" / "data").iterdir()
    assert left.suffix == ".tmp"
    left.write_bytes(left.read_bytes()[:100])
    first = prepare(f"folder:{folder}", 300, tmp_path / "cache")
    same(first, prepare(f"folder:{folder}", 300, tmp_path / "other"))


def test_writers_at_the_same_time_leave_one_whole_entry(tmp_path):
    path = tmp_path / "deep" / "entry"
    payloads = [bytes([i]) * 1_000_000 for i in range(8)]
    threads = [threading.Thread(target=cache.store, args=(path, p)) for p in payloads]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.load(path) in payloads
    assert [entry.name for entry in path.parent.iterdir()] == ["entry"]


def test_a_cache_that_cannot_be_written_is_not_an_error(folder, tmp_path):
    occupied = tmp_path / "file"
    occupied.write_text("not a folder")
    data = prepare(f"folder:{folder}", 300, occupied)
    same(data, prepare(f"folder:{folder}", 300, tmp_path / "cache"))


def test_where_the_cache_lies(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("JAXNAS_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache.cache_dir() == tmp_path / ".cache" / "jaxnas"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.cache_dir() == tmp_path / "xdg" / "jaxnas"
    monkeypatch.setenv("JAXNAS_CACHE", "~/own")
    assert cache.cache_dir() == tmp_path / "own"


def test_a_cache_is_made_for_its_user_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("JAXNAS_CACHE", str(tmp_path / "own"))
    assert cache.in_cache("data", "entry") == tmp_path / "own" / "data" / "entry"
    assert (tmp_path / "own").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "own" / "data").stat().st_mode & 0o777 == 0o700


def no_home():
    raise RuntimeError("no home")


@pytest.mark.parametrize("trouble", ["others write", "another's", "no home", "a file"])
def test_a_cache_that_is_not_ones_own_is_not_used(
    monkeypatch, tmp_path, capsys, trouble
):
    folder = tmp_path / trouble
    monkeypatch.setenv("JAXNAS_CACHE", str(folder))
    if trouble == "no home":
        monkeypatch.delenv("JAXNAS_CACHE")
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setattr(Path, "home", no_home)
    elif trouble == "a file":
        folder.write_text("no folder")
    else:
        folder.mkdir()
        folder.chmod(0o777 if trouble == "others write" else 0o755)
    if trouble == "another's":
        monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
        if folder.stat().st_uid == 0:  # root's are trusted
            os.chown(folder, 12345, 12345)
    assert cache.in_cache("data", "one") is None
    assert cache.in_cache("data", "other") is None
    [line] = capsys.readouterr().err.splitlines()  # said once
    assert line.startswith("jaxnas: nothing is cached: ")


def test_the_default_cache_is_used(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXNAS_CACHE", str(tmp_path / "default"))
    prepare(f"folder:{folder}", 300)
    assert len(list((tmp_path / "default" / "data").iterdir())) == 1


@pytest.mark.parametrize("vocab_size", [256, 65_537])
def test_vocab_size_is_checked_before_anything_is_read(vocab_size):
    with pytest.raises(DataError, match=f"257 .* to 65536, got {vocab_size}"):
        prepare("folder:/nowhere", vocab_size)


def test_a_split_without_files_says_which_and_why(tmp_path):
    for seed in range(3):
        (tmp_path / f"{seed}.py").write_text(program_in("train", program(seed)))
    with pytest.raises(DataError) as error:
        prepare(f"folder:{tmp_path}", 300, tmp_path / "cache")
    assert str(error.value) == (
        f"the validation split of 'folder:{tmp_path}' holds 0 files and 0 tokens, at"
        " least 1 file and 256 tokens are needed: the 3 distinct files are split by"
        " content hash, so add more files"
    )


def test_a_split_with_too_few_tokens_is_an_error(tmp_path):
    for name in SPLITS:
        text = "x = 1\n" if name == "test" else program(len(name), 200)
        (tmp_path / f"{name}.py").write_text(program_in(name, text))
    with pytest.raises(DataError, match=r"the test split .* 1 files and \d+ tokens"):
        prepare(f"folder:{tmp_path}", 300, tmp_path / "cache")


@pytest.mark.parametrize("number", [1, 2, 3, 10, 23])
def test_windows_are_evenly_spaced_pieces_of_the_tokens(number):
    tokens = np.arange(1000, dtype=np.uint16)
    got = windows(tokens, number, 42)
    assert got.shape == (number, 43)
    assert got.dtype == np.int32
    starts = got[:, 0]
    np.testing.assert_array_equal(got, starts[:, None] + np.arange(43))
    assert starts[0] == 0
    gaps = np.diff(starts)
    assert starts[-1] == (1000 - 43 if number > 1 else 0)
    assert np.ptp(gaps) <= 1 if number > 1 else True
    assert (gaps >= 43).all()  # 23 * 43 <= 1000: none overlap
    np.testing.assert_array_equal(windows(tokens, number, 42), got)


def test_windows_overlap_when_they_do_not_fit():
    tokens = np.arange(12, dtype=np.uint16)
    np.testing.assert_array_equal(windows(tokens, 3, 9)[:, 0], [0, 1, 2])
    np.testing.assert_array_equal(windows(tokens, 2, 11), [np.arange(12)] * 2)


def test_windows_longer_than_the_split_are_an_error():
    with pytest.raises(DataError, match="needs 13 tokens, the split holds 12"):
        windows(np.zeros(12, np.uint16), 1, 12)
    with pytest.raises(ValueError, match="number=0 and length=5 must be at least 1"):
        windows(np.zeros(12, np.uint16), 0, 5)


def test_the_standard_library(tmp_path):
    source = read_source("stdlib")
    assert 7e6 < sum(len(file.content) for file in source.files) < 9e6
    for file in source.files:
        *folders, last = file.name.split("/")
        assert last.endswith(".py")
        assert not last.startswith("test_")
        assert not {"test", "tests", "idle_test", "site-packages"} & set(folders)

    data = prepare("stdlib", 512, tmp_path)
    assert data.vocab_size == 512
    sizes = {name: getattr(data, name).size for name in SPLITS}
    assert 0.7 < sizes["train"] / sum(sizes.values()) < 0.9
    assert min(sizes.values()) > 100 * MIN_TOKENS

    # What was held out has no near-duplicate elsewhere, by plain sets of tuples.
    shingles = []
    for name in SPLITS:
        tokens = getattr(data, name)
        texts = np.split(tokens, np.flatnonzero(tokens == 0) + 1)[:-1]
        for part in texts:
            text = data.tokenizer.decode(part[:-1].tolist())
            words = re.findall(r"\w+|[^\w\s]", text)
            runs = {hash(tuple(words[i : i + 5])) for i in range(len(words) - 4)}
            shingles.append((name, runs or {hash(tuple(words))}))
    assert len(shingles) == data.statistics["files_kept"]
    for i, (here, one) in enumerate(shingles):
        for there, other in shingles[:i]:
            few, many = sorted((len(one), len(other)))
            if here != there and few >= 0.8 * many:  # else they cannot be alike
                both = len(one & other)
                assert both / (few + many - both) < 0.8
