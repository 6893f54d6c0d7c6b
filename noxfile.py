"""What CI runs, on every Python that is supported: `nox`, or `nox -s tests-3.13`."""

import nox

nox.options.reuse_existing_virtualenvs = True


@nox.session(python=["3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """The README's test command; arguments behind `--` take its place."""
    session.install("-e", ".[test]")
    command = ["-n", "auto", "--dist", "worksteal", "-m", "not slow"]
    session.run("python", "-m", "pytest", *(session.posargs or command))


@nox.session
def lint(session: nox.Session) -> None:
    """Style."""
    session.install("-e", ".[test]")
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Types."""
    session.install("-e", ".[test]")
    session.run("mypy")
