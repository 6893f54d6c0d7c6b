import gc
import shutil
import sys
from types import SimpleNamespace
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from jaxnas.errors import UsageError
from jaxnas.storage.checkpoints import Checkpoints, digest
from jaxnas.storage.jsonl import Mark


@pytest.fixture(autouse=True)
def collected():
    """What Orbax leaves of a damaged file is collected here, and is not reported."""
    yield
    gc.collect()


class Inner(NamedTuple):
    weights: jax.Array
    count: jax.Array


class State(NamedTuple):
    genomes: jax.Array
    inner: Inner
    params: dict
    nothing: tuple


def state_of(number):
    rng = np.random.default_rng(number)
    return State(
        genomes=jnp.asarray(rng.integers(0, 9, (4, 3)), jnp.int32),
        inner=Inner(
            jnp.asarray(rng.standard_normal((2, 5)), jnp.float32),
            jnp.asarray(number, jnp.int32),
        ),
        params={
            "kernel": jnp.asarray(rng.standard_normal((3, 2)), jnp.bfloat16),
            "bits": jnp.asarray(rng.integers(0, 2**32, 6), jnp.uint32),
            "odd": jnp.asarray([jnp.nan, -0.0, jnp.inf, 1e-45], jnp.float32),
            "flags": jnp.asarray(rng.random(7) < 0.5),
        },
        nothing=(),
    )


def same(first, second):
    """Equal to the bit, with the types of everything."""
    chex.assert_trees_all_equal_structs(first, second)
    for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        if np.asarray(one).tobytes() != np.asarray(other).tobytes():
            return False
    return True


def saved(folder, *steps, keep=3):
    checkpoints = Checkpoints(folder, keep)
    for step in steps:
        checkpoints.save(step, state_of(step))
    return folder


def latest(folder, like=None, keep=3):
    return Checkpoints(folder, keep).latest(state_of(0) if like is None else like)


def steps_in(folder):
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def test_the_newest_state_comes_back(tmp_path):
    folder = saved(tmp_path / "checkpoints", 1, 5, 20)
    step, state = latest(folder)
    assert step == 20
    assert same(state, state_of(20))
    assert isinstance(state, State)
    assert isinstance(state.inner, Inner)
    chex.assert_trees_all_equal(state, state_of(20))


def test_an_empty_folder_has_none(tmp_path):
    assert latest(tmp_path / "new") is None
    assert (tmp_path / "new").is_dir()


def test_the_lines_that_it_knows_come_back(tmp_path):
    marks = {"lines": Mark(2, "abc"), "none": Mark(0, "")}
    checkpoints = Checkpoints(tmp_path / "checkpoints", 3)
    assert checkpoints.known() is None
    checkpoints.save(1, state_of(1), marks)
    assert Checkpoints(tmp_path / "checkpoints", 3).known() == marks
    checkpoints.save(2, state_of(2))  # as earlier versions did
    assert Checkpoints(tmp_path / "checkpoints", 3).known() is None


@pytest.mark.parametrize("keep", [1, 2])
def test_only_the_newest_stay(tmp_path, keep):
    folder = saved(tmp_path / "checkpoints", 2, 4, 6, 8, keep=keep)
    assert steps_in(folder) == [2, 4, 6, 8][-keep:]
    saved(folder, 10, keep=keep)  # in another process, too
    assert steps_in(folder) == [4, 6, 8, 10][-keep:]
    assert latest(folder, keep=keep)[0] == 10


def test_what_orbax_checkpointer_wrote_is_read_and_goes_in_its_turn(tmp_path):
    """As earlier versions did."""
    folder = tmp_path / "checkpoints"
    with ocp.training.Checkpointer(folder) as old:
        for step in (1, 2):
            facts = {"digest": digest(state_of(step))}
            old.save(step, state_of(step), custom_metadata=facts)
    step, state = latest(folder)
    assert step == 2
    assert same(state, state_of(2))
    saved(folder, 3, keep=2)
    assert steps_in(folder) == [2, 3]


def test_a_step_that_is_there_stays(tmp_path):
    folder = saved(tmp_path / "checkpoints", 3)
    checkpoints = Checkpoints(folder, 3)
    checkpoints.save(3, state_of(99))
    checkpoints.save(4, state_of(4))
    assert same(latest(folder)[1], state_of(4))
    shutil.rmtree(folder / "4")
    step, state = latest(folder)
    assert step == 3
    assert same(state, state_of(3))


def test_leftovers_of_a_kill_are_ignored(tmp_path):
    folder = saved(tmp_path / "checkpoints", 1, 2)
    whole = folder / "2"
    for name in ("3.orbax-checkpoint-tmp", "3.orbax-checkpoint-tmp-17", "tmp", "x.3"):
        shutil.copytree(whole, folder / name)
    (folder / "note.txt").write_text("not a step")
    step, state = latest(folder)
    assert step == 2
    assert same(state, state_of(2))
    saved(folder, 3)
    step, state = latest(folder)
    assert step == 3
    assert same(state, state_of(3))


@pytest.mark.parametrize(
    "like",
    [
        state_of(0)._replace(genomes=jnp.zeros((5, 3), jnp.int32)),
        state_of(0)._replace(genomes=jnp.zeros((4, 3), jnp.float32)),
        state_of(0)._replace(params={"other": jnp.zeros(1)}),
        Inner(jnp.zeros(1), jnp.zeros(1)),
    ],
    ids=["shape", "dtype", "names", "structure"],
)
def test_a_state_of_another_form_is_refused(tmp_path, like):
    folder = saved(tmp_path / "checkpoints", 1)
    with pytest.raises(UsageError, match="checkpoints/1 is damaged") as raised:
        latest(folder, like)
    assert "\n" not in str(raised.value)


def files_of(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*"))


def remove(path, _):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def cut(path, rng):
    path.write_bytes(path.read_bytes()[: rng.integers(path.stat().st_size)])


def empty(path, _):
    path.write_bytes(b"")


def garble(path, rng):
    path.write_bytes(rng.bytes(path.stat().st_size))


def lengthen(path, rng):
    path.write_bytes(path.read_bytes() + rng.bytes(40))


def flip(path, rng):
    raw = bytearray(path.read_bytes())
    raw[rng.integers(len(raw))] ^= 1 << rng.integers(8)
    path.write_bytes(bytes(raw))


@pytest.mark.parametrize("damage", [remove, cut, empty, garble, lengthen, flip])
@pytest.mark.sweep(3)
def test_damage_is_found_or_does_no_harm(tmp_path, damage):
    whole = saved(tmp_path / "whole", 1, 2)
    rng = np.random.default_rng(0)
    refused = 0
    for name in files_of(whole / "2"):
        path = whole / "2" / name
        if damage is not remove and (path.is_dir() or path.stat().st_size == 0):
            continue
        for attempt in range(6 if damage is flip else 1):
            folder = tmp_path / f"{damage.__name__}{attempt}"
            shutil.copytree(whole, folder)
            damage(folder / "2" / name, rng)
            try:
                found = latest(folder)
            except UsageError as error:
                refused += 1
                said = str(error)
                assert said.startswith(f"the checkpoint {folder}")
                assert said.count("\n") == 0
                assert "remove it to resume from the one before" in said
                # As it says: with the damaged one gone, the one before is there.
                shutil.rmtree(folder / "2")
                step, state = latest(folder)
                assert (step, same(state, state_of(1))) == (1, True)
            else:
                step, state = found
                assert same(state, state_of(step)), name
                assert step == 2 or not (folder / "2").exists()
            shutil.rmtree(folder)
    assert refused > 2


def test_what_orbax_leaves_is_not_reported(tmp_path, monkeypatch, capfd):
    folder = saved(tmp_path / "checkpoints", 1)
    reports = []
    monkeypatch.setattr(sys, "unraisablehook", reports.append)
    (folder / "1" / "state" / "array_metadatas" / "process_0").write_bytes(b"?")
    with pytest.raises(UsageError, match="checkpoints/1 is damaged"):
        latest(folder)
    gc.collect()
    assert not reports
    assert not capfd.readouterr().err
    sys.unraisablehook(SimpleNamespace(object=gc, exc_value=ValueError("another")))
    assert len(reports) == 1


def test_other_arrays_in_the_checkpoint_are_found(tmp_path):
    folder = saved(tmp_path / "checkpoints", 1, 2)
    # A whole and readable state, but not the one that the digest is of.
    shutil.rmtree(folder / "2" / "state")
    shutil.copytree(folder / "1" / "state", folder / "2" / "state")
    with pytest.raises(UsageError, match="its contents have changed"):
        latest(folder)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UsageError, match="file/checkpoints is damaged") as raised:
        Checkpoints(tmp_path / "file" / "checkpoints", 3)
    assert "\n" not in str(raised.value)
