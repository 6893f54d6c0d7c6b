"""docs/architecture.md names every module, and no other."""

import pathlib
import re

import pytest
from test_layers import PACKAGES, ROOT

TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def named(package):
    """Modules in the tables below a package's headings: `file.py` in `folder/`."""
    found, folder = set(), None
    for line in TEXT.splitlines():
        if line.startswith("#"):
            heading = re.search(r"`([\w/]+)/`", line)
            folder = heading and pathlib.PurePath(heading[1])
        elif folder is not None and line.startswith("| `"):
            cell = line.split("|")[1]
            found |= {str(folder / name) for name in re.findall(r"`(\w+\.py)`", cell)}
    return {name for name in found if name.split("/")[0] == package}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_is_on_the_map(package):
    there = {
        str(path.relative_to(ROOT).as_posix())
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py"
    }
    assert named(package) == there
