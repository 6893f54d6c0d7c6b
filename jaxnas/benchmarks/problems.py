"""HumanEval (arXiv:2107.03374) and MBPP (arXiv:2108.07732), read from their files.

The files are the user's own; nothing in them is run here.
"""

import ast
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxnas.benchmarks.sandbox import Submission
from jaxnas.data.overlap import parsed, read_rows
from jaxnas.errors import UsageError
from jaxnas.storage.jsonl import Json

# What comes after a function is another one's; the Codex paper's, and the list that
# is usual for MBPP.
HUMANEVAL_STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint", "\n@")
MBPP_STOPS = ("\nclass", "\nassert", '\n"""', "\nprint", "\nif", "\n@")


class CodeProblem(NamedTuple):
    """A function to write.

    Attributes:
      name: as the file has it.
      prompt: what the model goes on with.
      before: code in front of what it writes; the prompt, or nothing.
      reference: a solution's own text, without `before`.
      tests: Python that fails unless the solution is right.
      stops: text that ends a solution.
    """

    name: str
    prompt: str
    before: str
    reference: str
    tests: str
    stops: tuple[str, ...]

    def program(self, text: str) -> Submission:
        """What is run of a text that the model wrote."""
        return Submission(self.before + cut(text, self.stops), self.tests, self.names)

    def reference_program(self) -> Submission:
        """The solution in the file."""
        return Submission(self.before + self.reference, self.tests, self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """What the reference defines, and the tests can call."""
        return top_names(self.before + self.reference)


def cut(text: str, stops: Sequence[str]) -> str:
    """Up to the first stop."""
    ends = [text.find(stop) for stop in stops]
    return text[: min((end for end in ends if end >= 0), default=len(text))]


def top_names(code: str) -> tuple[str, ...]:
    """Names that a module binds outside of its functions and classes, in order."""
    found: dict[str, None] = {}
    for node in parsed(code).body:
        match node:
            case ast.FunctionDef() | ast.ClassDef() | ast.AsyncFunctionDef():
                found[node.name] = None
            case ast.Import() | ast.ImportFrom():
                for alias in node.names:
                    found[(alias.asname or alias.name).split(".")[0]] = None
            case _:
                for part in ast.walk(node):
                    if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                        found[part.id] = None
    return tuple(found)


def read_humaneval(path: Path) -> list[CodeProblem]:
    """From `HumanEval.jsonl`, compressed or not.

    Raises:
      UsageError: the file cannot be read, or is another one.
    """
    return _read(path, _humaneval, "HumanEval's")


def read_mbpp(path: Path) -> list[CodeProblem]:
    """From `mbpp.jsonl` or `sanitized-mbpp.json`, compressed or not.

    Raises:
      UsageError: the file cannot be read, or is another one.
    """
    return _read(path, _mbpp, "MBPP's")


READERS = {"humaneval": read_humaneval, "mbpp": read_mbpp}


def _read(
    path: Path, make: Callable[[Json], CodeProblem], whose: str
) -> list[CodeProblem]:
    rows = read_rows(path)
    try:
        problems = [make(row) for row in rows]
        for problem in problems:
            parsed(problem.before + problem.reference)
    except (ValueError, KeyError, TypeError, AttributeError, SyntaxError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UsageError(f"{path} is not {whose} file ({reason})") from None
    return problems


def _humaneval(row: Json) -> CodeProblem:
    # The line break behind it is the model's to draw: with what it indents, a token.
    prompt = row["prompt"].rstrip()
    return CodeProblem(
        name=row["task_id"],
        prompt=prompt,
        before=prompt,
        reference=row["prompt"][len(prompt) :] + row["canonical_solution"],
        tests=f"{row['test']}\ncheck({row['entry_point']})\n",
        stops=HUMANEVAL_STOPS,
    )


def _mbpp(row: Json) -> CodeProblem:
    text = row["text"] if "text" in row else row["prompt"]
    tests = [line.strip() for line in row["test_list"]]
    imports = row.get("test_imports", [])
    setup = row.get("test_setup_code", "").replace("\r", "")
    return CodeProblem(
        name=f"MBPP/{row['task_id']}",
        prompt="\n".join(['"""', text, *tests, '"""']),
        before="",
        reference=row["code"].replace("\r", ""),
        tests="\n".join([*imports, setup, *tests, ""]),
        stops=MBPP_STOPS,
    )
