"""A run on the workers of a local Ray cluster is that of one process, to the byte."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import types
from concurrent.futures import Future
from pathlib import Path

import jax
import pytest
from corpus import write_corpus
from test_faults import SETTINGS, SPACE

import jaxnas
from jaxnas.errors import UsageError
from jaxnas.population.ray_cluster import Cluster, connected
from jaxnas.population.remote_call import About, kind_of
from jaxnas.version import __version__

SAME = ("results.jsonl", "rungs.jsonl", "best.json", "summary.json", "config.toml")
LARGER = SETTINGS | {"population": 4, "phases": "40,80"}


def refused(address):
    with pytest.raises(UsageError) as error, connected(address, None, print):
        pass
    return str(error.value)


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert refused("auto") == "--ray needs the package ray: pip install 'jaxnas[ray]'"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("here", "must be auto or HOST:PORT"),
        ("ray://127.0.0.1:10001", "must be auto or HOST:PORT"),
        ("127.0.0.1:70000", "must be auto or HOST:PORT"),
        ("127.0.0.1:1", "no Ray cluster answers"),
    ],
)
def test_a_wrong_address_is_one_line(address, said):
    pytest.importorskip("ray")
    text = refused(address)
    assert text.startswith(f"--ray {address}: {said}")
    assert "\n" not in text


def test_the_reason_why_auto_cannot_connect_is_told(monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def tell(error):
        def init(**_):
            raise error

        monkeypatch.setattr(ray, "init", init)
        return refused("auto")

    assert "no Ray cluster runs" in tell(ConnectionError("Could not find any"))
    version = "Version mismatch: The cluster was started with Python: 3.12"
    assert tell(RuntimeError(version)) == f"--ray auto: RuntimeError: {version}"
    assert "multiple" in tell(ConnectionError("Found multiple active instances"))


def waited(*found):
    """Whether a cluster begins whose workers are these, or fail so."""
    cluster = object.__new__(Cluster)
    cluster._resource, cluster.say = "CPU", print
    cluster._devices = {kind_of(jax.local_devices()[0])}
    cluster.members = []
    for one in found:
        about = Future()
        failed = isinstance(one, Exception)
        about.set_exception(one) if failed else about.set_result(one)
        cluster.members.append(types.SimpleNamespace(about=about))
    cluster.wait_for_one()


def test_a_cluster_begins_if_one_worker_can_take_part():
    """Whichever of them comes first."""
    device = jax.local_devices()[0]
    fit = About(
        version=__version__,
        jax=jax.__version__,
        platform=device.platform,
        device=kind_of(device),
        memory=1.0,
    )
    old = fit._replace(jax="0.1")
    for _ in range(20):  # which of several is told first is chance
        waited(old, fit, RuntimeError("lost"))
        waited(RuntimeError("lost"), fit, old)
    with pytest.raises(UsageError, match=r"no worker can take part: it has jax 0\.1"):
        waited(old, RuntimeError("lost"), old)
    with pytest.raises(UsageError, match="cannot start: lost"):
        waited(RuntimeError("lost"))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two nodes of a core each, all on this machine; this process is connected."""
    ray = pytest.importorskip("ray")
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"  # else Ray warns of it
    from ray.cluster_utils import Cluster as Nodes

    nodes = Nodes(initialize_head=True, head_node_args={"include_dashboard": False})
    nodes.add_node()
    ray.init(address=nodes.address, log_to_driver=False, logging_level="error")
    yield nodes
    ray.shutdown()
    nodes.shutdown()


def searched(out, root, **options):
    space = root / "two.toml"
    space.write_text(SPACE)
    data = f"folder:{root / 'code'}"
    jaxnas.search(out, data=data, space=str(space), **LARGER, **options)
    return {name: (out / name).read_bytes() for name in SAME}


def workers():
    """Process numbers of workers that train."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if b"ray::Worker.run" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of Ray's sockets
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_two_workers_a_lost_one_and_a_lost_node_leave_the_same_bytes(
    cluster, tmp_path, capsys
):
    write_corpus(tmp_path / "code")
    alone = searched(tmp_path / "alone", tmp_path)
    assert searched(tmp_path / "two", tmp_path, ray="auto") == alone
    [node] = cluster.worker_nodes
    for name, number, lose in (
        ("worker", 1, lambda: os.kill(workers()[0], signal.SIGKILL)),
        ("node", 2, lambda: cluster.remove_node(node, allow_graceful=False)),
    ):
        thread = threading.Thread(target=when_they_train, args=(number, lose))
        thread.start()
        assert searched(tmp_path / name, tmp_path, ray="auto") == alone
        thread.join()
        assert "a worker of the cluster is lost" in capsys.readouterr().out


def when_they_train(number, act):
    """Acts once so many workers train."""
    while len(workers()) < number:
        time.sleep(0.01)
    act()


@pytest.mark.slow
def test_the_command_line_says_it_in_one_line(tmp_path):
    pytest.importorskip("ray")
    command = [sys.executable, "-m", "jaxnas.run", "--ray", "127.0.0.1:1"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "run")], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("jaxnas: --ray 127.0.0.1:1: no Ray cluster answers")
    assert not (tmp_path / "run").exists()
