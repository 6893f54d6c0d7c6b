"""Runs a program and answers its tests' calls; trusts nobody, is not trusted."""

import json
import os
import sys
from typing import Any

from .confine import confine, limit
from .wire import Wire, decode, encode


class Objects:
    """What the tests know by number."""

    def __init__(self) -> None:
        self._kept: list[Any] = []
        self._numbers: dict[int, int] = {}  # id -> number; what is kept keeps its id

    def number(self, value: Any) -> int:
        """Of a value, the same each time."""
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self._kept)
            self._kept.append(value)
        return self._numbers[id(value)]

    def numbered(self, number: int) -> Any:
        """The value again."""
        return self._kept[number]


def main() -> None:
    """Serves descriptor 0 until its other end is closed."""
    settings = json.loads(sys.argv[1])
    wire = Wire(os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    limit(**settings["limits"])
    confine(settings["readable"])
    namespace: dict[str, Any] = {"__name__": "program"}
    objects = Objects()
    while True:
        try:
            action, *arguments = wire.receive()
        except EOFError:
            return
        try:
            arguments = [decode(one, objects.numbered) for one in arguments]
            found = _act(namespace, action, arguments)
            answer = {"value": encode(found, objects.number)}
        except BaseException as error:  # SystemExit, too, is an answer
            answer = {"error": type(error).__name__}
        wire.send(answer)


def _act(namespace: dict[str, Any], action: str, arguments: list[Any]) -> Any:
    match action, arguments:
        case "load", [code]:
            exec(compile(code, "program.py", "exec"), namespace)
            return None
        case "name", [name]:
            return namespace[name]
        case "call", [function, positional, named]:
            return function(*positional, **named)
        case "get", [value, name]:
            return getattr(value, name)
        case "set", [value, name, new]:
            return setattr(value, name, new)
        case "item", [value, key]:
            return value[key]
        case "list", [value]:
            return list(value)
        case "length", [value]:
            return len(value)
        case "truth", [value]:
            return bool(value)
    raise ValueError(action)
