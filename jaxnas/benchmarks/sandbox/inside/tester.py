"""Runs tests against a program in another process, and says whether they hold."""

import builtins
import json
import os
import sys
from typing import Any

from .confine import confine, limit
from .wire import Wire, decode, encode


class Remote:
    """Stands for something of the program that is no plain data.

    It equals itself alone, whatever the program says.
    """

    __slots__ = ("_number", "_program")

    def __init__(self, program: "TestedCode", number: int) -> None:
        object.__setattr__(self, "_program", program)
        object.__setattr__(self, "_number", number)

    def __call__(self, *positional: Any, **named: Any) -> Any:
        return self._program.ask("call", self, list(positional), named)

    def __getattr__(self, name: str) -> Any:
        return self._program.ask("get", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._program.ask("set", self, name, value)

    def __getitem__(self, key: Any) -> Any:
        return self._program.ask("item", self, key)

    def __iter__(self) -> Any:
        return iter(self._program.ask("list", self))

    def __len__(self) -> int:
        return self._program.ask("length", self)

    def __bool__(self) -> bool:
        return self._program.ask("truth", self)


class TestedCode:
    """The program at the other end of a wire."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._remotes: dict[int, Remote] = {}

    def ask(self, action: str, *arguments: Any) -> Any:
        """Has it do something.

        Raises:
          Exception: what the program raised, if it is one of Python's own.
        """
        self._wire.send([action, *(encode(one, self._number) for one in arguments)])
        answer = self._wire.receive()
        if "error" in answer:
            raise _exception(str(answer["error"]))("the program raised it")
        return decode(answer["value"], self._numbered)

    def _number(self, value: Any) -> int:
        if type(value) is not Remote:
            raise TypeError(f"a program takes no {type(value).__name__} of a test")
        return value._number

    def _numbered(self, number: int) -> Remote:
        return self._remotes.setdefault(number, Remote(self, number))


def _exception(name: str) -> type[Exception]:
    """Python's own of that name; an unknown one is a RuntimeError."""
    kind = vars(builtins).get(name)
    if isinstance(kind, type) and issubclass(kind, Exception):
        return kind
    return RuntimeError


def main() -> None:
    """Reads a task from descriptor 0, writes a verdict to 1."""
    settings = json.loads(sys.argv[1])
    with os.fdopen(0, "rb", closefd=False) as task_file:
        task = json.load(task_file)
    verdict = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    limit(**settings["limits"])
    confine(settings["readable"])
    try:
        _test(TestedCode(Wire(settings["wire"])), task)
        found = {"nonce": task["nonce"]}
    except BaseException as error:  # a test that exits has not held
        found = {"why": f"{type(error).__name__}: {error}"[:200]}
    os.write(verdict, json.dumps(found).encode())


def _test(program: TestedCode, task: dict[str, Any]) -> None:
    namespace: dict[str, Any] = {"__name__": "tests"}
    program.ask("load", task["code"])
    for name in task["names"]:
        try:
            namespace[name] = program.ask("name", name)
        except KeyError:
            continue  # the tests say whether they need it
    exec(compile(task["tests"], "tests.py", "exec"), namespace)
