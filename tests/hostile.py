"""Programs that try to get out of the sandbox, or to pass without being right.

Each defines `breach`, which is true if it got what it wanted; its test asserts that,
so that a verdict of "passed" is a hole. As a script, with JSON of a name of a sandbox,
a secret file and a folder to write in as its argument, it prints their verdicts.
"""

import json
import sys
from pathlib import Path
from textwrap import dedent

from jaxnas.benchmarks.sandbox import SandboxLimits, Submission, judge_all
from jaxnas.benchmarks.sandbox.launch import SANDBOXES

LIMITS = SandboxLimits(seconds=2, output=1 << 16)

# What a breach is, as the body of a function. SECRET and FOLDER are paths outside.
BREACHES = {
    "forks": "return os.fork() >= 0",
    "fork bomb": """
        while True:
            os.fork()""",
    "forks by clone": "return libc.syscall(56, 17, 0, 0, 0, 0) >= 0",
    "forks by clone3": """
        given = (ctypes.c_uint64 * 11)(*[0] * 4, 17)
        return libc.syscall(435, given, 88) >= 0""",
    "starts a program": "return subprocess.run(['/bin/true']).returncode == 0",
    "becomes a program": "os.execv('/bin/true', ['true'])",
    "a bomb of threads": """
        import threading
        for _ in range(10_000):
            threading.Thread(target=time.sleep, args=(9,), daemon=True).start()
        return True""",
    "takes all memory": "return len(bytearray(1 << 32)) > 0",
    "takes memory in steps": """
        held = []
        while True:
            held.append(bytearray(1 << 24))""",
    "takes shared memory": "return libc.syscall(319, b'x', 0) >= 0",
    "fills the disk": """
        for number in range(100):
            with open(f'/tmp/{number}', 'wb') as file:
                file.write(bytes(1 << 23))
        return True""",
    "fills shared memory files": """
        with open('/dev/shm/x', 'wb') as file:
            return file.write(bytes(1 << 20)) > 0""",
    "opens a socket": "return socket.socket().fileno() >= 0",
    "resolves a name": "return bool(socket.getaddrinfo('localhost', 80))",
    "asks the host's daemons": """
        one = socket.socket(socket.AF_UNIX)
        return one.connect_ex('/run/systemd/private') == 0""",
    "opens a ring": """
        return libc.syscall(425, 8, ctypes.create_string_buffer(120)) >= 0""",
    "reads home": "return open(SECRET).read() != ''",
    "lists home": "return os.listdir(os.path.dirname(SECRET)) != []",
    "reads passwords": "return open('/etc/shadow').read() != ''",
    "writes outside": "return open(FOLDER + '/x', 'w').write('x') > 0",
    "writes to the system": "return open('/usr/x', 'w').write('x') > 0",
    "truncates": """
        os.truncate(SECRET, 0)
        return True""",
    "changes rights": """
        os.chmod(SECRET, 0o777)
        return True""",
    "removes": """
        os.remove(SECRET)
        return True""",
    "links out": """
        os.symlink(SECRET, '/tmp/link')
        return open('/tmp/link').read() != ''""",
    "links hard": """
        os.link(SECRET, FOLDER + '/link')
        return True""",
    "walks up": "return open('/tmp/../../..' + SECRET).read() != ''",
    "reads through its parent's root": """
        return open(f'/proc/{os.getppid()}/root' + SECRET).read() != ''""",
    "kills its parent": """
        os.kill(os.getppid(), 9)
        return True""",
    "kills everyone": """
        os.kill(-1, 9)
        return True""",
    "signals its group": """
        os.killpg(0, 15)
        return True""",
    "ends the tests": "os._exit(0)",
    "raises what exits": "raise SystemExit(0)",
    "prints success": """
        print('{"nonce": "0"}', flush=True)
        os.write(1, b'passed'), os.write(2, b'passed')
        os._exit(0)""",
    "answers for the tests": """
        for one in range(3, 64):
            try:
                os.write(one, b'{"nonce": ""}' + bytes([10]))
            except OSError:
                pass
        os._exit(0)""",
    "equals everything": """
        class Same:
            def __eq__(self, other): return True
        return Same() if EQUAL else False""",
    "changes what tests call": """
        import builtins
        builtins.AssertionError = builtins.len = builtins.bool = lambda *_: True
        return []""",
    "traces": "return libc.ptrace(16, os.getppid(), 0, 0) == 0",
    "reads another's memory": """
        return libc.syscall(310, os.getppid(), 0, 0, 0, 0, 0) >= 0""",
    "reads the nonce": """
        for one in filter(str.isdigit, os.listdir('/proc')):
            if b'nonce' in open(f'/proc/{one}/cmdline', 'rb').read():
                return True
        return bool(os.environ.get('HOME'))""",
    "unshares": "return libc.unshare(0x10000000) == 0",
    "mounts": "return libc.mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0",
    "changes its root": "return libc.chroot(b'/tmp') == 0",
    "becomes root": """
        os.setuid(0), os.setgid(0)
        return open('/etc/shadow').read() != ''""",
    "loads code into the kernel": """
        return libc.syscall(321, 0, ctypes.create_string_buffer(120), 120) >= 0""",
    "raises its limits": """
        import resource
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
        return True""",
    "prints without end": """
        while True:
            print('x' * 4096)""",
    "answers without end": "return 'x' * (1 << 26)",
    "answers deeply": """
        found = []
        for _ in range(100_000):
            found = [found]
        return found""",
    "never ends": """
        while True:
            pass""",
    "sleeps through signals": """
        import signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGXCPU, signal.SIG_IGN)
        time.sleep(1000)""",
}

_HEAD = """
import ctypes, os, socket, subprocess, sys, time
libc = ctypes.CDLL(None)
SECRET, FOLDER, EQUAL = {!r}, {!r}, {!r}
def breach():
"""


def programs(secret, folder):
    """Each of them, and one that is right."""
    found = {}
    for name, body in BREACHES.items():
        equal = name == "equals everything"
        tests = "assert breach() == 42" if equal else "assert breach() is True"
        body = "\n".join(f"    {line}" for line in dedent(body).strip().split("\n"))
        code = _HEAD.format(str(secret), str(folder), equal) + body + "\n"
        found[name] = Submission(code, tests, ("breach",))
    right = "class Pair:\n    def __init__(self, a):\n        self.a = a\n"
    right += "def first(pair): return {pair.a: (1.5, 'x')}\n"
    tests = "assert first(Pair(7)) == {7: (1.5, 'x')}"
    found["is right"] = Submission(right, tests, ("Pair", "first"))
    return found


def verdicts(sandbox, secret, folder):
    """Name -> verdict, by the sandbox of that name."""
    found = programs(secret, folder)
    judged = judge_all(list(found.values()), SANDBOXES[sandbox](), LIMITS)
    return dict(zip(found, judged, strict=True))


if __name__ == "__main__":
    sandbox, secret, folder = json.loads(sys.argv[1])
    print(json.dumps(verdicts(sandbox, Path(secret), Path(folder))))
