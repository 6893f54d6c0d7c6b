import dataclasses
import functools
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models

from arch import ArchitectureConfig, build_model
from arch.decoding.generate import Generated, generate
from arch.decoding.sampling import GREEDY, Sampling
from arch.decoding.unrolled import unstack
from arch.initial import draw_parameters
from jaxnas.commands.generate import Speed
from jaxnas.data import train_tokenizer
from jaxnas.export.model_folder import load_model, save_model
from jaxnas.keys import key_of
from jaxnas.run import main
from jaxnas.serving.pieces import pieces

TEXT = "def f(x):\n    return x  # é 日本 <|endoftext|>\n"
TOKENS = train_tokenizer([TEXT] * 3, 270)
CONFIG = ArchitectureConfig(
    arch_type="transformer",
    num_layers=1,
    hidden_dim=16,
    num_heads=2,
    ffn_multiplier=2.0,
    normalization="layernorm",
    activation="gelu",
    position_encoding="alibi",
    vocab_size=TOKENS.get_vocab_size(),
    max_seq_length=40,
)


@functools.cache
def parameters(config):
    drawn = draw_parameters(build_model(config), jax.random.key(0))
    return jax.tree.map(lambda leaf: 2 * leaf, drawn)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a model and more; no programs are kept."""
    monkeypatch.setattr("jaxnas.commands.generate.set_up", lambda: None)
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "model", CONFIG, parameters(CONFIG), TOKENS)
    ends = dataclasses.replace(CONFIG, position_encoding="rope")
    save_model(tmp_path / "ends", ends, parameters(ends), TOKENS)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    return tmp_path


@pytest.fixture
def command(folder, capfdbinary):
    """Runs `generate`: exit code, text, the lines of standard error."""

    def run(*arguments):
        try:
            code = main(["generate", *map(str, arguments)])
        except SystemExit as ended:
            code = ended.code
        out, error = capfdbinary.readouterr()
        return code, out.decode(), error.decode().splitlines()

    return run


def drawn_text(prompt, number=0, sampling=None, model="model", new=20):
    """The text that a saved model draws behind a text or tokens."""
    config, params, tokenizer = load_model(model)
    ids = tokenizer.encode(prompt).ids if isinstance(prompt, str) else prompt
    done = generate(
        key_of(0, "generate", number),
        config,
        unstack(params),
        [ids],
        max_new=new,
        sampling=sampling or Sampling(temperature=0.8, top_p=0.95),
        stop_tokens=[0],
    )
    return tokenizer.decode(done.tokens[0, : done.lengths[0]].tolist())


# ---- what is written ----


def test_the_text_is_the_one_that_is_drawn(command):
    code, text, said = command("model", "--prompt", "def f", "--max-new", 20)
    assert code == 0
    assert text == drawn_text("def f") + "\n"
    assert len(text) > 5
    assert len(said) == 1
    assert said[0].startswith("jaxnas: 20 tokens, ")
    assert said[0].endswith(" tokens/s")


def test_settings_and_a_prompt_file_reach_the_model(command, folder):
    (folder / "prompt").write_bytes("return é".encode())
    arguments = ["model", "--prompt-file", "prompt", "--max-new", 20]
    settings = ["--top-k", 9, "--top-p", 0.7, "--min-p", 0.01]
    settings += ["--temperature", 1.3, "--repetition-penalty", 1.4]
    sampling = Sampling(
        temperature=1.3, top_k=9, top_p=0.7, min_p=0.01, repetition_penalty=1.4
    )
    _, text, _ = command(*arguments, *settings)
    assert text == drawn_text("return é", sampling=sampling) + "\n"


def test_samples_differ_and_the_seed_decides(command):
    arguments = ["model", "--prompt", "x", "--max-new", 20]
    _, text, said = command(*arguments, "--num", 2)
    first, second = drawn_text("x"), drawn_text("x", 1)
    assert first != second
    assert text == (
        f"--- sample 1 of 2 ---\n{first}\n--- sample 2 of 2 ---\n{second}\n"
    )
    assert said[0].startswith("jaxnas: 40 tokens")
    _, other, _ = command(*arguments, "--seed", 1)
    assert other != first + "\n"


def test_a_stop_text_ends_the_text_before_it(command):
    whole = drawn_text("x")
    stop = whole[6:9]
    code, text, _ = command(
        "model", "--prompt", "x", "--max-new", 20, "--stop", "never", stop
    )
    assert code == 0
    assert text == whole[: whole.index(stop)] + "\n"


def test_an_empty_prompt_begins_behind_an_end_of_text(command):
    code, text, _ = command("model", "--prompt", "", "--max-new", 20)
    assert code == 0
    assert text == drawn_text([0]) + "\n"


def test_greedy_text_as_long_as_the_model_has_room_for(command):
    prompt = "x" * 30
    code, text, said = command("ends", "--prompt", prompt, "--greedy", "--seed", 5)
    assert code == 0
    assert text == drawn_text(prompt, model="ends", sampling=GREEDY, new=10) + "\n"
    assert said[0].startswith("jaxnas: 10 tokens")
    _, cold, _ = command("ends", "--prompt", prompt, "--temperature", 0)
    assert cold == text


@pytest.mark.parametrize("way", ["broken", "whole"])
@pytest.mark.sweep(2)
def test_another_program_reads_what_is_written(folder, way):
    done = subprocess.Popen(
        [
            *(sys.executable, "-m", "jaxnas.run", "generate", "model"),
            *("--prompt-file", "-", "--max-new", "3000" if way == "broken" else "20"),
        ],
        env={**os.environ, "JAXNAS_CACHE": str(folder), "PYTHONIOENCODING": "ascii"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    if way == "broken":
        done.stdin.write(b"def f")
        done.stdin.close()
        assert done.stdout.read(1)
        done.stdout.close()
        said = done.stderr.read().decode()
        done.wait(60)
        assert 1 < int(said.split()[1]) < 3000
    else:
        text, said = (x.decode() for x in done.communicate(b"def f", timeout=60))
        assert text == drawn_text("def f") + "\n"
    assert done.returncode == 0
    assert len(said.splitlines()) == 1
    done.stderr.close()


# ---- text from tokens ----


def in_blocks(ids, block):
    """What `stream` gives for a row that draws these tokens."""
    tokens = np.asarray([ids], np.int32)
    for end in [*range(1, len(ids), block), len(ids)]:
        yield Generated(tokens, np.asarray([end], np.int32))


@pytest.mark.parametrize("block", [1, 2, 5])
def test_characters_come_whole(block):
    text = "a é 日本\n🙂𝄞z � ÿ"
    ids = TOKENS.encode(text).ids
    assert len(ids) > len(text)
    got = list(pieces(in_blocks(ids, block), TOKENS, []))
    assert "".join(got) == text
    assert len(got) > 3
    assert all(got)
    # A character that stays in pieces comes out as one that stands for it.
    half = TOKENS.encode("x🙂").ids[:-2]
    assert "".join(pieces(in_blocks(half, block), TOKENS, [])) == "x�"


@pytest.mark.parametrize("block", [1, 2, 5, 100])
@pytest.mark.parametrize(
    ("stops", "wanted"),
    [
        ([], "abcabdabé\nclass"),
        (["abd"], "abc"),
        (["\nclass"], "abcabdabé"),
        (["class X", "é"], "abcabdab"),
        (["zzz", "class!"], "abcabdabé\nclass"),
        (["bd", "abd"], "abc"),
        (["a"], ""),
    ],
)
def test_nothing_of_a_stop_text_is_written(stops, wanted, block):
    ids = TOKENS.encode("abcabdabé\nclass").ids
    got = list(pieces(in_blocks(ids, block), TOKENS, stops))
    assert "".join(got) == wanted
    assert all(got)


def test_a_text_keeps_its_first_space():
    """Tokenizers of the kind of Llama's drop the first space of what they decode."""
    words = Tokenizer(models.WordLevel({"a": 0, "b": 1}))
    words.decoder = decoders.Sequence(
        [
            decoders.Replace("a", " a"),
            decoders.Replace("b", " b"),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    assert words.decode([0, 1]) != words.decode([0]) + words.decode([1])
    assert "".join(pieces(in_blocks([1], 1), words, [], [0])) == " b"


def test_text_comes_as_soon_as_it_is_certain():
    ids = TOKENS.encode("abcd").ids
    assert list(pieces(in_blocks(ids, 1), TOKENS, ["cx"])) == ["a", "b", "cd"]
    parts = in_blocks(ids, 1)
    assert next(pieces(parts, TOKENS, [])) == "a"
    assert len(list(parts)) == 3


def test_the_end_of_text_is_no_text():
    ids = [*TOKENS.encode("ab").ids, 0]
    assert list(pieces(in_blocks(ids, 9), TOKENS, [])) == ["a", "b"]


def test_the_speed_leaves_out_what_compiles():
    speed = Speed()
    assert str(speed) == "0 tokens"
    assert len(list(speed.watch(in_blocks([1] * 9, 8)))) == 2
    assert str(speed) == "9 tokens"
    list(speed.watch(in_blocks([1] * 25, 8)))
    assert (speed.tokens, speed.timed) == (34, 16)
    speed.seconds = 0.5
    assert str(speed) == "34 tokens, 32 tokens/s"


# ---- bad input ----


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["absent", "--prompt", "x"], "cannot read a model from absent"),
        (["model"], "one of the arguments --prompt --prompt-file is required"),
        (["model", "--prompt", "x", "--prompt-file", "y"], "not allowed with"),
        (["model", "--prompt-file", "absent"], "cannot read absent: No such file"),
        (["model", "--prompt-file", "binary"], "cannot read binary: it is not UTF-8"),
        (["model", "--prompt", "\udcff"], "cannot read --prompt: it is not UTF-8"),
        (["model", "--prompt", "x", "--temperature", "-1"], "temperature=-1.0 is not"),
        (["model", "--prompt", "x", "--temperature", "hot"], "invalid float value"),
        (["model", "--prompt", "x", "--greedy", "--temperature", "1"], "not allowed"),
        (["model", "--prompt", "x", "--top-k", "-1"], "top_k=-1 is not allowed"),
        (["model", "--prompt", "x", "--top-p", "0"], "top_p=0.0 is not allowed"),
        (["model", "--prompt", "x", "--min-p", "2"], "min_p=2.0 is not allowed"),
        (["model", "--prompt", "x", "--max-new", "0"], "max_new=0 must be at least 1"),
        (["model", "--prompt", "x", "--num", "0"], "--num must be at least 1"),
        (["model", "--prompt", "x", "--seed", "-1"], "--seed in 0 to 2**32 - 1"),
        (["model", "--prompt", "x", "--stop", ""], "--stop must not be empty"),
        (["ends", "--prompt", "x" * 40], "more than max_seq_length=40"),
        (["ends", "--prompt", "x", "--max-new", "40"], "more than max_seq_length=40"),
    ],
)
def test_bad_input_is_one_line(command, arguments, said):
    code, text, lines = command(*arguments)
    assert code == 2
    assert text == ""
    assert len(lines) == 1
    assert said in lines[0]


def test_an_empty_prompt_needs_a_token_to_begin_with(command, folder):
    plain = (folder / "model" / "tokenizer.json").read_text()
    # Another one's end of text does, too.
    renamed = plain.replace("<|endoftext|>", "</s>")
    (folder / "model" / "tokenizer.json").write_text(renamed)
    assert command("model", "--prompt", "", "--max-new", 2)[0] == 0
    renamed = plain.replace("<|endoftext|>", "<|other|>")
    (folder / "model" / "tokenizer.json").write_text(renamed)
    code, text, lines = command("model", "--prompt", "")
    assert (code, text) == (2, "")
    assert "the prompt is empty, and the tokenizer has no token" in lines[0]
