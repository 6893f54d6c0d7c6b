"""A Ray cluster: a worker for each of its cores, or of its GPUs where the run has one.

Ray (Moritz et al. 2018, arXiv:1712.05889) starts the workers, where there is room, and
moves data; which worker trains what is `RemotePool`'s to say.
"""

import concurrent.futures
import contextlib
import importlib.util
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import jax

from jaxnas.data import Dataset
from jaxnas.errors import UsageError, reason_of
from jaxnas.population.program import Program
from jaxnas.population.ray_worker import Setup, Worker, mirrored
from jaxnas.population.remote_call import (
    About,
    Call,
    Ran,
    SharedWork,
    deciding_config,
    kind_of,
)
from jaxnas.version import __version__

ANSWERS = 5.0  # seconds that an address may take to answer
STARTS = 300.0  # seconds until the first worker has to be there
RESOURCES = {"cpu": "CPU", "gpu": "GPU"}  # platform -> what Ray calls its devices
# An HTTP/2 client begins so (RFC 9113, 3.4); SETTINGS, frame type 4, is the answer.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


class ClusterWorker:
    """A worker of the cluster, as the run sees it.

    Attributes:
      about: comes once the process is there.
    """

    def __init__(self, start: Callable[[], Any]) -> None:
        """Starts the process; `start` returns Ray's handle of it."""
        self._start = start
        self.restart()

    def restart(self) -> None:
        """A new process in place of one that is lost."""
        self._handle = self._start()
        self.about: Future[About] = self._handle.ready.remote().future()

    @property
    def is_there(self) -> bool:
        """Whether the process has set itself up."""
        return self.about.done() and self.about.exception() is None

    def run(self, plan: int, data: Any, shared: Any, call: Call) -> "Future[Ran]":
        """Begins a call; arguments as for `Worker.run`."""
        return self._handle.run.remote(plan, [data], shared, call).future()

    def stop(self, plan: int) -> None:
        """Has the calls of a plan given up at their next steps."""
        self._handle.stop.remote(plan)

    def kill(self) -> None:
        """Ends the process."""
        import ray

        ray.kill(self._handle)


class Cluster:
    """The workers, and what they all read.

    Attributes:
      members: the workers that take part.
      holders: program -> those that have compiled it.
      say: told what goes otherwise than planned.
      watch: told how many of the workers train.
    """

    def __init__(self, setup: Setup, resource: str, say: Callable[[str], None]) -> None:
        """Starts a worker for each of the resource; Ray is connected."""
        import ray

        need = {"num_cpus": 1} if resource == "CPU" else {"num_cpus": 0, "num_gpus": 1}
        # Two methods at once, so that a call can be stopped.
        actor: Any = ray.remote(Worker)
        self._start = lambda: actor.options(max_concurrency=2, **need).remote(setup)
        self._resource, self.say = resource, say
        self._plans = 0
        self._data: Any = None
        self._devices = {kind_of(jax.local_devices()[0])}
        self.watch: Callable[[int, int], None] = lambda busy, members: None
        self.members: list[ClusterWorker] = []
        self.holders: dict[Program, set[ClusterWorker]] = {}
        self._left_out = 0
        self.grow()

    def grow(self) -> None:
        """Workers for what has joined the cluster since."""
        import ray

        there = int(ray.cluster_resources().get(self._resource, 0))
        for _ in range(there - len(self.members) - self._left_out):
            self.members.append(ClusterWorker(self._start))

    def restart(self, member: ClusterWorker) -> None:
        """A new process in place of a worker's, which has compiled nothing."""
        for holders in self.holders.values():
            holders.discard(member)
        member.restart()

    def leave_out(self, member: ClusterWorker) -> None:
        """A worker takes no part any more."""
        self.members.remove(member)
        self._left_out += 1

    def next_plan(self) -> int:
        """The number of the plan that runs next."""
        self._plans += 1
        return self._plans

    def data(self, dataset: Dataset) -> Any:
        """A reference to the data, which goes into the object store once."""
        import ray

        if self._data is None:
            self._data = ray.put(dataset)
        return self._data

    def shared(self, work: SharedWork) -> Any:
        """A reference to what all calls of a plan read."""
        import ray

        return ray.put(work)

    def wait_for_one(self) -> None:
        """Until a worker is there that would do what this process would.

        Which of them comes first is chance: one that cannot take part ends nothing
        while another may.

        Raises:
          UsageError: there is none.
        """
        if not self.members:
            raise UsageError(f"the Ray cluster has no {self._resource} to train on")
        error: BaseException | None = None
        fault: str | None = None
        try:
            waiting = [member.about for member in self.members]
            for about in concurrent.futures.as_completed(waiting, STARTS):
                if (failed := about.exception()) is not None:
                    error = failed
                elif (wrong := self.fault(about.result())) is not None:
                    fault = wrong
                else:
                    return
        except TimeoutError:
            if fault is not None:
                raise UsageError(f"--ray: no worker can take part: {fault}") from None
            import ray

            free = ray.available_resources().get(self._resource, 0)
            raise UsageError(
                f"no worker of the Ray cluster is there after {STARTS:.0f} s: "
                f"{free:.0f} of {len(self.members)} {self._resource} are free"
            ) from None
        if fault is not None:
            raise UsageError(f"--ray: no worker can take part: {fault}")
        assert error is not None
        raise UsageError(f"the workers of the Ray cluster cannot start: {_last(error)}")

    def fault(self, about: About) -> str | None:
        """Why a worker would not do what this process would; None if it would.

        One with another kind of device may take part; that is said once.
        """
        device = jax.local_devices()[0]
        for name, theirs, ours in (
            ("jaxnas", about.version, __version__),
            ("jax", about.jax, jax.__version__),
            ("platform", about.platform, device.platform),
        ):
            if theirs != ours:
                return f"it has {name} {theirs}, the run {name} {ours}"
        if about.device not in self._devices:
            self._devices.add(about.device)
            self.say(
                f"warning: a worker trains on {about.device}, this process is on "
                f"{kind_of(device)}: results may differ in their last digits"
            )
        return None

    def close(self) -> None:
        """Ends all workers."""
        for member in self.members:
            with contextlib.suppress(Exception):  # it may be dead
                member.kill()


@contextlib.contextmanager
def connected(
    address: str, limit: float | None, say: Callable[[str], None]
) -> Iterator[Cluster]:
    """The cluster at an address, with its workers.

    Args:
      address: HOST:PORT of its head, or auto: the one that this process is connected
        to, or that runs on this machine, or that RAY_ADDRESS names.
      limit: bytes of a device that may be used; None for a share of it.
      say: told what goes otherwise than planned.

    Raises:
      UsageError: there is no such cluster, or it cannot do what this process would.
    """
    if importlib.util.find_spec("ray") is None:
        raise UsageError("--ray needs the package ray: pip install 'jaxnas[ray]'")
    device = jax.local_devices()[0]
    if device.platform not in RESOURCES:
        raise UsageError(
            f"--ray: workers with a {device.platform} are not known, only with a "
            f"{' or a '.join(RESOURCES)}"
        )
    environment = mirrored()
    if device.platform == "cpu":
        environment["JAX_PLATFORMS"] = "cpu"
    own = _connect(address)
    import ray

    try:
        setup = Setup(environment, deciding_config(), limit)
        cluster = Cluster(setup, RESOURCES[device.platform], say)
        try:
            cluster.wait_for_one()
            yield cluster
        finally:
            cluster.close()
    finally:
        if own:
            ray.shutdown()


def _connect(address: str) -> bool:
    """Connects to Ray; False if this process was connected already."""
    # Ray shows a token by itself to its own clusters only, and reads this as it is
    # imported; a program that has done that has chosen.
    if "ray" not in sys.modules and _has_token():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray

    if address == "auto" and ray.is_initialized():
        return False
    found = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
    if found != "auto":
        _check_answers(found)
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=found, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        several = "multiple" in str(error)
        if found == "auto" and isinstance(error, ConnectionError) and not several:
            raise UsageError(
                "--ray auto: no Ray cluster runs on this machine: ray start --head "
                "starts one"
            ) from None
        raise UsageError(f"--ray {found}: {reason_of(error)}") from None
    finally:
        with contextlib.suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGTERM, before)  # Ray has set one of its own
    return True


def _has_token() -> bool:
    """Whether there is a token that clusters may ask for."""
    if "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ:
        return True
    with contextlib.suppress(OSError, RuntimeError):  # no home
        return Path("~/.ray/auth_token").expanduser().is_file()
    return False


def _check_answers(address: str) -> None:
    """Asks whether something that may be Ray is there: Ray itself takes minutes.

    Raises:
      UsageError: the address is none, or nothing like Ray answers there.
    """
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(
            f"--ray {address}: must be auto or HOST:PORT, such as 10.0.0.1:6379"
        )
    try:
        with socket.create_connection((host, int(port)), ANSWERS) as connection:
            if os.environ.get("RAY_USE_TLS", "0") in ("1", "true", "True"):
                return
            connection.settimeout(ANSWERS)
            connection.sendall(_PREFACE)
            answer = connection.recv(9)
    except (OSError, UnicodeError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"--ray {address}: no Ray cluster answers ({said})") from None
    if len(answer) < 9 or answer[3] != 4:
        raise UsageError(
            f"--ray {address}: what answers is not the head of a Ray cluster, whose "
            "port is 6379 by default"
        )


def _last(error: BaseException) -> str:
    """The last line of what Ray says, which is the reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else reason_of(error)
