"""What mkdocs is told beside mkdocs.yml: where links leave the docs, what is generated.

The READMEs of experiments/ are pages of the site; code is named and not linked. Two
pages are filled in as they are built, from the code as it is: each command's help
and what the quick ones print, and the docstrings of the public names.
"""

import contextlib
import importlib
import inspect
import io
import keyword
import os
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from mkdocs.structure.files import File, InclusionLevel

ROOT = Path(__file__).parents[1]
OUTSIDE = re.compile(r"\[([^\]]*)\]\((?:\.\./)+([^)#]+)(#[^)]*)?\)")
COMMANDS_HERE, API_HERE = "<!-- every command -->", "<!-- every public name -->"
os.environ.setdefault("JAX_PLATFORMS", "cpu")  # the commands here only count
PACKAGES = ("jaxnas", "arch", "search")
SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises):$", re.MULTILINE)
EXAMPLES = {
    "space": ["minimal"],
    "show": ["ultra-small"],
    "explain": ["llama-3-8b"],
    "compare": ["llama-3-8b", "mistral-7b"],
    "baselines": [],
}


def on_config(config):
    """Gives pages that the nav does not name a place at its end."""
    if str(ROOT) not in sys.path:  # this copy's code is shown, whatever is installed
        sys.path.insert(0, str(ROOT))
    named = set(re.findall(r"[\w/-]+\.md", str(config.nav)))
    docs = Path(config.docs_dir)
    there = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")}
    if left := sorted(there - named):
        config.nav.append({"More": left})
    return config


def on_files(files, config):
    """Adds the experiments' pages, and what they show."""
    for path in sorted((ROOT / "experiments").rglob("*")):
        if path.suffix in (".md", ".png", ".svg"):
            name = path.relative_to(ROOT).as_posix()
            file = File(name, str(ROOT), config.site_dir, False)
            if name != "experiments/README.md":
                file.inclusion = InclusionLevel.NOT_IN_NAV
            files.append(file)
    return files


def on_page_markdown(markdown, page, config, files):
    """Fills in what is generated, and points links out of docs/ into the site.

    Links to what is no page lose their target.
    """
    if COMMANDS_HERE in markdown:
        markdown = markdown.replace(COMMANDS_HERE, "\n".join(commands()))
    if API_HERE in markdown:
        markdown = markdown.replace(API_HERE, "\n".join(public_names()))
    depth = page.file.src_uri.count("/")

    def turned(found):
        words, target, anchor = found[1], found[2], found[3] or ""
        target = target.removeprefix("docs/")
        for name in (target, f"{target.rstrip('/')}/README.md"):
            if files.get_file_from_path(name) is not None:
                return f"[{words}]({'../' * depth}{name}{anchor})"
        return words

    return OUTSIDE.sub(turned, markdown)


def commands() -> Iterator[str]:
    """Each command as Markdown: its help, and what a quick one prints."""
    for name, about in importlib.import_module("jaxnas.commands").COMMANDS.items():
        yield f"## {name}\n\n{about[0].upper()}{about[1:]}.\n"
        yield block("text", printed(name, ["--help"]))
        if (words := EXAMPLES.get(name)) is not None:
            yield block("bash", " ".join(["python -m jaxnas.run", name, *words]))
            yield block("text", printed(name, words))


def printed(name: str, words: list[str]) -> str:
    """What a command prints in 80 columns, which the page has room for.

    Raises:
      RuntimeError: it ended in an error.
    """
    module = f"{name}_" if keyword.iskeyword(name) else name
    command = importlib.import_module(f"jaxnas.commands.{module}")
    before, said = os.environ.get("COLUMNS"), io.StringIO()
    os.environ["COLUMNS"] = "80"
    try:
        with contextlib.redirect_stdout(said):
            command.main(words)
    except SystemExit as ended:
        if ended.code:
            raise RuntimeError(f"{name} {words} ended with {ended.code}") from None
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before
    return "\n".join(line.rstrip() for line in said.getvalue().splitlines())


def public_names() -> Iterator[str]:
    """The public names of the three packages as Markdown, in order."""
    for package in PACKAGES:
        module = importlib.import_module(package)
        yield f"## `{package}`\n\n{inspect.getdoc(module)}\n"
        for name in module.__all__:
            thing = getattr(module, name)
            yield f"### `{package}.{name}`\n"
            yield from described(name, thing)


def described(name: str, thing: object) -> Iterator[str]:
    """A function's or a class's signature and docstring; a value's type."""
    if not (inspect.isclass(thing) or inspect.isfunction(thing)):
        names = f" of {', '.join(thing)}" if isinstance(thing, dict) else ""
        yield f"A `{type(thing).__name__}`{names}.\n"
        return
    yield block("python", f"{name}{signature_of(thing)}")
    if text := inspect.getdoc(thing):
        yield as_markdown(text)
    if inspect.isclass(thing):
        for method, function in inspect.getmembers(thing, inspect.isfunction):
            own = function.__qualname__.startswith(f"{thing.__name__}.")
            if own and not method.startswith("_") and inspect.getdoc(function):
                yield f"#### `{name}.{method}`\n"
                yield block("python", f"{method}{signature_of(function)}")
                yield as_markdown(inspect.getdoc(function))


def signature_of(thing) -> str:
    """The signature, a parameter a line where it is long."""
    try:
        signature = inspect.signature(thing)
    except ValueError:
        return "(...)"
    text = re.sub(r"\b[a-z_][a-z_\d.]*\.(?=[A-Z])", "", str(signature))
    text = re.sub(r" at 0x[0-9a-f]+", "", text)
    if len(text) <= 72:
        return text
    parts, depth, last = [], 0, 0
    for place, sign in enumerate(text):
        depth += (sign in "([{") - (sign in ")]}")
        if depth == 0:  # the end of the parameters
            parts += [text[last:place].lstrip("( "), text[place:]]
            break
        if depth == 1 and sign == ",":
            parts.append(text[last:place].lstrip("( "))
            last = place + 1
    *parameters, rest = parts
    return "(\n" + "".join(f"    {one},\n" for one in parameters) + rest


def as_markdown(text: str) -> str:
    """A docstring's sections as headings, their entries as lists."""
    first, *rest = SECTION.split(text)
    parts = [first.strip()]
    for title, body in zip(rest[::2], rest[1::2], strict=True):
        entries, after = [], []
        for line in textwrap.dedent(body.strip("\n")).splitlines():
            found = re.match(r"([\w*]+(?:, [\w*]+)*): (.*)", line)
            if after or (line and title in ("Returns", "Yields")) or not line:
                after.append(line)
            elif found:
                entries.append(f"- `{found[1]}`: {found[2]}")
            elif entries:
                entries[-1] += f" {line.strip()}"
            else:
                after.append(line)
        parts += [f"**{title}**", "\n".join(entries), "\n".join(after).strip()]
    return "\n\n".join(part for part in parts if part) + "\n"


def block(language: str, text: str) -> str:
    """A fenced block."""
    return f"```{language}\n{text}\n```\n"
