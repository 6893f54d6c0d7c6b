import hashlib
import os

import pytest

from jaxnas.data.folders import read_stdlib
from jaxnas.data.named import read_source
from jaxnas.data.sources import MAX_BYTES, MAX_LINE, DataError


def write(folder, **contents):
    for name, content in contents.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def names(source):
    return [file.name for file in source.files]


def test_a_folder_gives_its_source_files_sorted_by_path(tmp_path):
    write(
        tmp_path,
        z_dot_py=b"z = 1\r\n",
        a__deep__b_dot_rs=b"fn main() {}",
        a_dot_R=b"x <- 1",
        notes_dot_md=b"words",
    )
    source = read_source(f"folder:{tmp_path}")
    assert names(source) == ["a.R", "a/deep/b.rs", "z.py"]
    assert source.files[2].content == b"z = 1\r\n"
    assert source.files[2].text == "z = 1\r\n"
    assert source.files[2].sha256 == hashlib.sha256(b"z = 1\r\n").hexdigest()
    assert source.left_out == {"without a source suffix": 1}


def test_links_are_read_where_they_stay_in_the_folder(tmp_path):
    (tmp_path / "secret.py").write_text("key = 3\n")
    folder = tmp_path / "code"
    write(folder, a_dot_py=b"a = 1\n")
    (folder / "inside.py").symlink_to("a.py")
    (folder / "out.py").symlink_to("../secret.py")
    (folder / "device.py").symlink_to("/dev/zero")
    (folder / "itself.py").symlink_to("itself.py")
    for base in (folder, tmp_path / "link"):
        (tmp_path / "link").is_symlink() or (tmp_path / "link").symlink_to(folder)
        source = read_source(f"folder:{base}")
        assert names(source) == ["a.py", "inside.py"]
        assert source.left_out == {"links out of the folder": 2, "not regular files": 1}


def test_files_that_are_not_text_are_left_out_with_the_reason(tmp_path):
    write(
        tmp_path,
        good_dot_py="naïve = '水'\n".encode(),
        empty_dot_py=b"",
        null_dot_py=b"x = '\0'",
        latin_dot_py=b"# caf\xe9",
        large_dot_py=b"# line\n" * (MAX_BYTES // 7 + 1),
        fits_dot_py=b"line\n" * (MAX_BYTES // 5),
        minified_dot_js=b"x=1;\n" + b"y" * (MAX_LINE + 1),
        long_dot_js=b"y" * MAX_LINE,
    )
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "broken.py").symlink_to(tmp_path / "nowhere.py")
    source = read_source(f"folder:{tmp_path}")
    assert names(source) == ["fits.py", "good.py", "long.js"]
    assert source.left_out == {
        "binary": 1,
        "empty": 1,
        "larger than 1,000,000 bytes": 1,
        "not UTF-8": 1,
        "not regular files": 2,
        "with a line over 10,000 bytes": 1,
    }


def test_dependencies_builds_and_hidden_folders_are_not_entered(tmp_path):
    write(tmp_path, src__a_dot_py=b"a = 1")
    skipped = ["node_modules", "venv", ".venv", ".git", "build", "dist", "target"]
    for folder in [*skipped, "site-packages", "__pycache__"]:
        write(tmp_path / "src" / folder, b_dot_py=b"b = 1")
    source = read_source(f"folder:{tmp_path}")
    assert names(source) == ["src/a.py"]
    expected = [f"src/{name}" for name in [*skipped, "site-packages"]]
    assert source.skipped_folders == sorted(expected)


def test_a_folder_named_like_a_skipped_one_can_be_asked_for(tmp_path):
    write(tmp_path / "build", a_dot_py=b"a = 1")
    assert names(read_source(f"folder:{tmp_path}/build")) == ["a.py"]


def test_a_link_back_to_the_folder_is_not_followed(tmp_path):
    write(tmp_path, sub__a_dot_py=b"a = 1")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert names(read_source(f"folder:{tmp_path}")) == ["sub/a.py"]


def test_a_standard_library_is_read_without_tests_tables_and_platform_files(tmp_path):
    write(
        tmp_path,
        argparse_dot_py=b"a",
        email__message_dot_py=b"b",
        venv__main_dot_py=b"c",
        email__test_things_dot_py=b"d",
        unittest__test__case_dot_py=b"e",
        pydoc_data__topics_dot_py=b"f",
        html__entities_dot_py=b"g",
        encodings__cp1252_dot_py=b"h",
        msilib__schema_dot_py=b"j",
        README_dot_txt=b"k",
    )
    write(tmp_path / "config-3.11-x86_64", a_dot_py=b"l")
    write(tmp_path / "site-packages" / "numpy", a_dot_py=b"m")
    (tmp_path / "_sysconfigdata__linux_.py").write_bytes(b"i")
    source = read_stdlib(tmp_path)
    assert names(source) == ["argparse.py", "email/message.py", "venv/main.py"]
    assert source.left_out == {"a generated table": 2, "a test": 1, "not Python": 1}


@pytest.mark.parametrize("spec", ["", "stdlb", "folder", "folder:", "github:a/b"])
def test_an_unknown_source_names_those_there_are(spec):
    with pytest.raises(DataError) as error:
        read_source(spec)
    message = str(error.value)
    assert message.startswith(f"unknown data source {spec!r}: give ")
    known = ("stdlib", "folder:PATH", "parquet:PATH", "hf:NAME@COMMIT")
    assert all(f'"{name}"' in message for name in known)
    assert "\n" not in message


def test_a_path_that_is_no_folder_is_an_error(tmp_path):
    write(tmp_path, a_dot_py=b"a = 1")
    with pytest.raises(DataError, match=r"data folder '.*/missing' does not exist"):
        read_source(f"folder:{tmp_path}/missing")
    # A file is read as it is.
    assert names(read_source(f"folder:{tmp_path}/a.py")) == ["a.py#1"]


def test_a_folder_without_usable_text_says_what_it_saw(tmp_path):
    with pytest.raises(DataError, match=r": 0 files seen; usable are UTF-8 files"):
        read_source(f"folder:{tmp_path}")
    write(tmp_path, a_dot_py=b"\0", b_dot_py=b"\xff", c_dot_o=b"\x7fELF\0")
    write(tmp_path / "build", a_dot_py=b"a = 1")
    with pytest.raises(DataError) as error:
        read_source(f"folder:{tmp_path}")
    message = str(error.value)
    assert (
        ": 3 files seen, 1 binary, 1 not UTF-8, 1 without a source suffix,"
        " 1 folders not looked into (build); usable are UTF-8 files ending in one of"
    ) in message
    assert "\n" not in message
