"""Runs programs that nobody has read, and says whether their tests hold."""

from jaxnas.benchmarks.sandbox.judge import (
    LIMITS,
    Limits,
    Program,
    Verdict,
    judge,
    judge_all,
)
from jaxnas.benchmarks.sandbox.launch import Sandbox, find_sandbox

__all__ = [
    "LIMITS",
    "Limits",
    "Program",
    "Sandbox",
    "Verdict",
    "find_sandbox",
    "judge",
    "judge_all",
]
