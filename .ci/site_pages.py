"""What mkdocs is told beside mkdocs.yml: where links leave the docs.

The READMEs of experiments/ are pages of the site; code is named and not linked.
"""

import re
from pathlib import Path

from mkdocs.structure.files import File, InclusionLevel

ROOT = Path(__file__).parents[1]
OUTSIDE = re.compile(r"\[([^\]]*)\]\((?:\.\./)+([^)#]+)(#[^)]*)?\)")


def on_config(config):
    """Gives pages that the nav does not name a place at its end."""
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
    """Points links out of docs/ to pages of the site; others lose their target."""
    depth = page.file.src_uri.count("/")

    def turned(found):
        words, target, anchor = found[1], found[2], found[3] or ""
        target = target.removeprefix("docs/")
        for name in (target, f"{target.rstrip('/')}/README.md"):
            if files.get_file_from_path(name) is not None:
                return f"[{words}]({'../' * depth}{name}{anchor})"
        return words

    return OUTSIDE.sub(turned, markdown)
