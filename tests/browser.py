"""A page in Chromium: what a script that is put into it finds there."""

import json
import re
import shutil
import subprocess

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here: apt-get install chromium"
)


def found_in(page, script, folder, width):
    """What the script, run at the page's end, gives to `done(...)`.

    Args:
      page: HTML.
      script: JavaScript.
      folder: to write in.
      width: of the window, pixels.
    """
    told = "const done = (found) => { document.title = JSON.stringify(found); };"
    file = folder / "page.html"
    end = f"<script>{told}\n{script}</script></body>"
    file.write_text(page.replace("</body>", end))
    shown = subprocess.run(
        [
            CHROMIUM,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={folder / 'profile'}",
            f"--window-size={width},1200",
            "--enable-logging=stderr",
            "--dump-dom",
            file.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    complaints = [line for line in shown.stderr.splitlines() if "CONSOLE" in line]
    assert complaints == []
    return json.loads(re.search(r"<title>(.*?)</title>", shown.stdout)[1])
