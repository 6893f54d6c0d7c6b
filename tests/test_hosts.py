"""A training that the devices of two hosts share; two processes stand for them."""

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from corpus import write_corpus
from tasks import TINY

from arch import build_model
from arch.initial import draw_parameters
from jaxnas.data import prepare
from jaxnas.export.model_folder import load_model, save_model
from jaxnas.run import main

# A checkpoint after each call, where a run has one a minute.
EAGER = """
import sys
from jaxnas.errors import end_process
from jaxnas.pipeline import winner
from jaxnas.run import main
winner.SAVE_EVERY = -1.0
end_process(main(sys.argv[1:]))
"""
STARTED: list[subprocess.Popen] = []
SAME = ("curve.jsonl", "model/model.safetensors", "summary.json")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with code, and a saved model."""
    folder = tmp_path_factory.mktemp("hosts")
    code = write_corpus(folder / "code")
    config = dataclasses.replace(TINY, vocab_size=300, max_seq_length=16)
    params = draw_parameters(build_model(config), jax.random.key(0))
    tokenizer = prepare(f"folder:{code}", 300).tokenizer
    save_model(folder / "model", config, params, tokenizer)
    return folder


def given(place, out, tokens=2560):
    settings = (
        f"--tokens {tokens} --window 16 --batch 4 --evaluate-every 20 --eval-windows 8 "
        "--final-windows 8 --learning-rate 0.01"
    )
    data = f"folder:{place / 'code'}"
    return [str(place / "model"), "--data", data, "--out", str(out), *settings.split()]


def started(arguments, devices=1, **environment):
    """A process that trains."""
    flag = f"--xla_force_host_platform_device_count={devices}"
    process = subprocess.Popen(
        [sys.executable, "-c", EAGER, "train", *arguments],
        env={**os.environ, "XLA_FLAGS": flag, "JAX_PLATFORMS": "cpu", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    STARTED.append(process)
    return process


def on_hosts(arguments, devices=(1, 1), address="127.0.0.1"):
    """The processes of hosts with so many devices each, the first one first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = f"{address}:{free.getsockname()[1]}"
    return [
        started([*arguments, "--hosts", where, "--host", f"{number}/{len(devices)}"], n)
        for number, n in enumerate(devices, 1)
    ]


def in_a_job(arguments):
    """The same, as SLURM starts them."""
    job = {
        "SLURM_JOB_ID": str(os.getpid()),  # which decides the port
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_NUM_NODES": "2",
        "SLURM_NTASKS": "2",
        "SLURM_LOCALID": "0",
    }
    return [
        started([*arguments, "--hosts", "auto"], **job, SLURM_PROCID=str(index))
        for index in range(2)
    ]


@pytest.fixture(autouse=True)
def none_is_left():
    """Of the processes, whatever becomes of a test."""
    yield
    while STARTED:
        with STARTED.pop() as process:
            process.kill()


def ended(process):
    """Its exit code and what it said."""
    said, wrong = process.communicate(timeout=300)
    return process.returncode, said, wrong


def evaluated(out, process, times):
    """Waits until a training has so many evaluations."""
    curve, end = out / "curve.jsonl", time.monotonic() + 300
    while not curve.exists() or curve.read_bytes().count(b"\n") < times:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(scope="module")
def whole(place):
    """A training on two hosts that nothing disturbed: 40 steps."""
    out = place / "whole"
    first, second = map(ended, on_hosts(given(place, out)))
    assert first[0] == 0, first
    assert second[0] == 0, second
    assert "on 2 x cpu of 2 hosts" in first[1]
    assert "host 2 of 2 follows" in second[1]
    return out


def test_two_hosts_train_as_two_devices_of_one(place, whole, tmp_path):
    code, said, wrong = ended(started(given(place, tmp_path / "one"), devices=2))
    assert code == 0, wrong
    assert "on 2 x cpu\n" in said
    found = [load_model(out / "model").params for out in (whole, tmp_path / "one")]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *found)


@pytest.mark.slow
def test_four_hosts_train_as_two(place, whole, tmp_path):
    address = "[::1]" if os.path.exists("/proc/net/if_inet6") else "127.0.0.1"
    four = on_hosts(given(place, tmp_path / "four"), (1, 1, 1, 1), address)
    for number, (code, said, wrong) in enumerate(map(ended, four), 1):
        assert code == 0, wrong
        words = f"host {number} of 4" if number > 1 else "on 4 x cpu of 4 hosts"
        assert words in said
    found = [load_model(out / "model").params for out in (whole, tmp_path / "four")]
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    jax.tree.map(close, *found)  # they are stored in 16 bits


def test_ended_and_gone_on_with_it_gives_the_same_bytes(place, whole, tmp_path):
    out = tmp_path / "cut"
    first, second = on_hosts(given(place, out))
    evaluated(out, first, 2)
    first.send_signal(signal.SIGTERM)
    code, _, wrong = ended(first)
    assert code == 143, wrong
    assert "terminated; go on with --resume" in wrong
    code, _, wrong = ended(second)
    assert code == 1, wrong
    assert "the first host ended" in wrong
    assert "Traceback" not in wrong
    for code, _, wrong in map(ended, in_a_job(["--resume", str(out)])):
        assert code == 0, wrong
    for name in SAME:
        assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_one_host_goes_on_with_what_all_of_them_were_told_to_end(place, tmp_path):
    out = tmp_path / "cut"
    processes = on_hosts([*given(place, out), "--accumulate", "2"])
    evaluated(out, processes[0], 2)
    for process in processes:
        process.send_signal(signal.SIGTERM)
    first, second = map(ended, processes)
    assert first[0] == 143, first
    assert "terminated; go on with --resume" in first[2]
    assert second[0] in (1, 143), second
    assert "Traceback" not in first[2] + second[2]
    assert main(["verify", str(out)]) == 0
    assert main(["train", "--resume", str(out)]) == 0
    assert main(["verify", str(out)]) == 0


def test_a_host_that_is_lost_ends_it_in_one_line(place, tmp_path):
    out = tmp_path / "lost"
    first, second = on_hosts(given(place, out, tokens=10**7))
    evaluated(out, first, 3)
    second.kill()
    code, _, wrong = ended(first)
    assert code == 1, wrong
    assert "the training lost another host" in wrong
    assert "Traceback" not in wrong


def test_hosts_with_other_numbers_of_devices_are_refused(place, tmp_path):
    for code, _, wrong in map(ended, on_hosts(given(place, tmp_path / "bad"), (1, 2))):
        assert code == 2, wrong
        assert "all hosts must have the same number of devices" in wrong
        assert "Traceback" not in wrong
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--host", "1/2"], "--host goes with --hosts"),
        (["--hosts", "here"], "--hosts must be ADDRESS:PORT of the first (IPv6"),
        (["--hosts", "10.0.0.1:70000"], "--hosts must be ADDRESS:PORT"),
        (["--hosts", "10.0.0.1:99"], "--host must say which host this is"),
        (["--hosts", "10.0.0.1:99", "--host", "3/2"], "such as 1/2 and 2/2, got '3/2'"),
        (["--hosts", "10.0.0.1:99", "--host", "0/2"], "such as 1/2 and 2/2, got '0/2'"),
        (["--hosts", "auto", "--host", "1/2"], "leave it out"),
    ],
)
def test_what_cannot_be_used_is_one_line(place, tmp_path, capsys, more, said):
    assert main(["train", *given(place, tmp_path / "bad"), *more]) == 2
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == 1
    assert not (tmp_path / "bad").exists()


def test_where_no_scheduler_says_the_hosts_auto_is_refused(place, tmp_path):
    """In a process of its own: JAX may be in use here."""
    code, _, wrong = ended(started([*given(place, tmp_path / "bad"), "--hosts=auto"]))
    assert code == 2, wrong
    assert wrong.startswith("jaxnas: --hosts auto: ")
    assert wrong.count("\n") == 1
