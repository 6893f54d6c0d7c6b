"""The gate for what is read: bounded, regular files, one line."""

import gzip
import math
import os

import pytest

from arch import ArchitectureConfig
from jaxnas.checks import fault
from jaxnas.commands.options import Parser, whole
from jaxnas.config import RunConfig, read_run_settings
from jaxnas.errors import UsageError
from jaxnas.storage import inputs
from jaxnas.storage.inputs import (
    read_bytes,
    read_json,
    read_text,
    read_toml,
    read_unpacked,
    regular_file,
    user_path,
)

DEEP = "[" * 100_000 + "]" * 100_000
DIGITS = "9" * 5_000
READERS = [read_text, read_json, read_toml, regular_file]


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_whole_is_read(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"\xef\xbb\xbf[3, 0.5]")
    assert read_bytes(path, 100) == path.read_bytes()
    assert read_text(path) == "[3, 0.5]"  # without the byte-order mark
    assert read_json(path) == [3, 0.5]
    path.write_bytes(b"\xef\xbb\xbfa = 3")
    assert read_toml(path) == {"a": 3}
    assert regular_file(path) == path


def device(path):
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [os.mkfifo, device, os.mkdir])
@pytest.mark.parametrize("read", READERS)
def test_what_is_no_file_is_not_waited_for(tmp_path, make, read):
    make(tmp_path / "odd")
    with pytest.raises(UsageError, match=r"cannot read .*odd: ") as error:
        read(tmp_path / "odd")
    one_line(error)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("name", ["absent", "a\0b", "x" * 300])
def test_what_cannot_be_opened_is_one_line(tmp_path, name, read):
    with pytest.raises(UsageError, match="cannot read "):
        read(tmp_path / name)


def test_no_more_than_the_bound_is_read(tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(2**40)  # no block of it is on the disk
    for read in (read_text, read_json, read_toml):
        with pytest.raises(UsageError, match=r"holds 1,099,511,627,776 bytes: at most"):
            read(path)


@pytest.mark.parametrize(
    ("read", "text", "said"),
    [
        (read_json, DEEP, "nested too deeply"),
        (read_json, DIGITS, "thousands of digits"),
        (read_json, "NaN", "NaN is no finite number"),
        (read_json, "[-Infinity]", "is no finite number"),
        (read_json, "1e999", "1e999 is no finite number"),
        (read_json, f"[-1{'0' * 400}]", "is no finite number"),
        (read_json, "{", "is not JSON"),
        (read_toml, f"a = {DEEP}", "nested too deeply"),
        (read_toml, f"a = {DIGITS}", "thousands of digits"),
        (read_toml, "a = = 3", "is not TOML"),
        (read_text, "\udcff", "is not UTF-8"),
    ],
)
def test_what_a_file_must_not_hold(tmp_path, read, text, said):
    path = tmp_path / "file"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageError, match=said) as error:
        read(path)
    assert len(one_line(error)) < 400


def test_what_is_packed_is_bounded_too(tmp_path):
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(b"x" * 1000))
    assert read_unpacked(path, 1000) == b"x" * 1000
    path.write_bytes(gzip.compress(bytes(2**24)))  # 16 KiB
    with pytest.raises(UsageError, match="unpacks to more than 100,000 bytes"):
        read_unpacked(path, 100_000)
    path.write_bytes(gzip.compress(b"x" * 1000)[:-9])
    with pytest.raises(UsageError, match="cannot read"):
        read_unpacked(path, 1000)


def test_a_path_of_no_user_is_one_line():
    with pytest.raises(UsageError, match="no such user"):
        user_path("~no-such-user-here/x")
    with pytest.raises(UsageError, match="no such user"):
        RunConfig(data="folder:~no-such-user-here/x").anchored()


@pytest.mark.parametrize("value", [10**400, -(10**400), 1e301, math.inf, math.nan])
def test_numbers_beyond_floats_are_refused(value):
    assert fault(value, float) == "must be finite"


@pytest.mark.parametrize(
    "settings",
    [
        {"population": 2**32 - 1},
        {"generations": 2**32 - 1},
        {"batch": 100_000},
        {"window": 10_000_000},
        {"eval_windows": 2**32 - 1},
        {"eval_windows": 2**20, "window": 2**20},
        {"final_windows": 2**20, "window": 2**20},
        {"final_steps": 2**28, "batch": 2**16},
        {"samples": 2**31, "epochs": 2},
        {"phases": "999999999x99999"},
    ],
)
def test_settings_that_no_memory_holds_are_refused(settings):
    with pytest.raises(UsageError, match="at most") as error:
        RunConfig(**settings).resolve("cpu")
    one_line(error)


@pytest.mark.parametrize("name", ["hidden_dim", "num_layers", "vocab_size", "ffn_dim"])
def test_a_config_has_counts_that_can_be(name):
    fields = {
        "arch_type": "transformer",
        "num_layers": 2,
        "hidden_dim": 8,
        "num_heads": 2,
        "ffn_multiplier": 4,
        "normalization": "rmsnorm",
        "activation": "gelu",
        "position_encoding": "rope",
    }
    with pytest.raises(ValueError, match=f"{name}=1000.* is not allowed"):
        ArchitectureConfig(**fields | {name: 10**26})


def test_a_config_is_nested_and_long_only_so_far():
    for text in (DEEP, '{"num_layers": ' + DIGITS + "}"):
        with pytest.raises(ValueError, match="config is not JSON"):
            ArchitectureConfig.from_json(text)


@pytest.mark.parametrize("value", ["1e20", "1" + "0" * 20, "9" * 5000, "x"])
def test_an_argument_is_a_number_of_a_bounded_size(value, capsys):
    parser = Parser(prog="it")
    parser.add_argument("--n", type=whole())
    with pytest.raises(SystemExit) as left:
        parser.parse_args(["--n", value])
    assert left.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert len(line) < 600


def test_a_folder_of_a_run_with_odd_parts_is_refused(tmp_path):
    from jaxnas.storage.run_folder import existing_run

    (tmp_path / "config.toml").write_text("seed = 0\n")
    (tmp_path / "checkpoints").write_text("no folder")
    with (
        pytest.raises(UsageError, match="checkpoints is damaged: it is no folder"),
        existing_run(tmp_path),
    ):
        pass
    (tmp_path / "checkpoints").unlink()
    os.mkfifo(tmp_path / "results.jsonl")
    with (
        pytest.raises(UsageError, match=r"results\.jsonl is damaged: it is no file"),
        existing_run(tmp_path),
    ):
        pass
    with pytest.raises(UsageError, match="lacks data"):
        read_run_settings(tmp_path / "config.toml")


def test_a_file_that_grows_is_read_to_its_bound(tmp_path, monkeypatch):
    """As /proc's files: they say that they hold nothing."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    real = os.fstat

    def empty(handle):
        return os.stat_result([*real(handle)[:6], 0, *real(handle)[7:]])

    monkeypatch.setattr(inputs.os, "fstat", empty)
    assert read_bytes(path, 50) == b"x" * 50
