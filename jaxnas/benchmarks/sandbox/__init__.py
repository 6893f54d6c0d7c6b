"""Runs programs that nobody has read, and says whether their tests hold."""

from jaxnas.benchmarks.sandbox.judge import (
    LIMITS,
    SandboxLimits,
    Submission,
    Verdict,
    judge,
    judge_all,
)
from jaxnas.benchmarks.sandbox.launch import Sandbox, find_sandbox

__all__ = [
    "LIMITS",
    "Sandbox",
    "SandboxLimits",
    "Submission",
    "Verdict",
    "find_sandbox",
    "judge",
    "judge_all",
]
