"""Values between a program and its tests: data by value, all else by number.

What arrives is built from plain data alone, so that neither side runs the other's
code: an object whose `==` always holds is a number to the tests.
"""

import builtins
import io
import json
import os
import sys
from collections import abc
from collections.abc import Callable
from types import ModuleType
from typing import Any

MAX_MESSAGE = 1 << 24  # bytes

_SEQUENCES = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}


class Wire:
    """Messages of one line of JSON each, over a file descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines = io.BufferedReader(io.FileIO(descriptor, closefd=False))

    def send(self, message: Any) -> None:
        """Writes one."""
        data = json.dumps(message).encode() + b"\n"
        if len(data) > MAX_MESSAGE:
            raise ValueError("a value is too large")
        while data:
            data = data[os.write(self._descriptor, data) :]

    def receive(self) -> Any:
        """Waits for one.

        Raises:
          EOFError: the other side has ended, or said too much.
        """
        line = self._lines.readline(MAX_MESSAGE)
        if not line.endswith(b"\n"):
            raise EOFError("the program ended")
        return json.loads(line)


def encode(value: Any, number: Callable[[Any], int]) -> Any:
    """As JSON; `number` names what is no plain data."""
    if value is None or isinstance(value, int | float | str):
        return value
    for name, kind in _SEQUENCES.items():
        if isinstance(value, kind):
            return {name: [encode(item, number) for item in value]}
    if isinstance(value, abc.Mapping):
        pairs = [[encode(part, number) for part in pair] for pair in value.items()]
        return {"dict": pairs}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, bytes | bytearray):
        return {"bytes": value.hex()}
    if isinstance(value, ModuleType) and value.__name__ in sys.stdlib_module_names:
        return {"module": value.__name__}
    if isinstance(value, type) and value == vars(builtins).get(value.__name__):
        return {"type": value.__name__}
    return {"object": number(value)}


def decode(value: Any, numbered: Callable[[int], Any]) -> Any:
    """The value again; `numbered` gives what stands for a numbered one.

    Raises:
      ValueError: nothing that `encode` writes.
    """
    if value is None or isinstance(value, int | float | str):
        return value
    if not isinstance(value, dict) or len(value) != 1:
        raise ValueError("no encoded value")
    ((kind, given),) = value.items()
    if kind in _SEQUENCES:
        return _SEQUENCES[kind](decode(item, numbered) for item in given)
    if kind == "dict":
        return {decode(key, numbered): decode(item, numbered) for key, item in given}
    if kind == "complex":
        return complex(*given)
    if kind == "bytes":
        return bytes.fromhex(given)
    if kind == "module" and given in sys.stdlib_module_names:
        return __import__(given)
    if kind == "type" and isinstance(found := vars(builtins).get(given), type):
        return found
    if kind == "object" and isinstance(given, int):
        return numbered(given)
    raise ValueError("no encoded value")
