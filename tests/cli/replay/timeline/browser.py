"""Opens a page from a file in headless Chromium.

Uses no driver: a script in a copy of the page presses the keys.
"""

import base64
import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


def found() -> str:
    """The browser's path; the test is skipped where there is none."""
    path = next((there for name in NAMES if (there := shutil.which(name))), None)
    if path is None:
        pytest.skip("no Chromium is installed here (Debian: apt-get install chromium)")
    return path


def run(page: Path, *options: str) -> str:
    """Open the page; return the browser's output."""
    done = subprocess.run(
        [
            found(),
            "--headless",
            "--no-sandbox",  # it may run as root, in a container
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={page.parent / 'profile'}",
            *options,
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    return done.stdout


def with_driver(page: str, driver: str) -> str:
    """The page with a script appended to its own, which its policy then allows."""
    _, opening, rest = page.rpartition("<script>")
    script, closing, _ = rest.partition("</script>")
    assert opening
    assert closing
    policy = [
        f"sha256-{base64.b64encode(hashlib.sha256(it.encode()).digest()).decode()}"
        for it in (script, script + driver)
    ]
    assert policy[0] in page
    return page.replace(policy[0], policy[1]).replace(script, script + driver)


def framed(page: Path, *, width: int, height: int) -> Path:
    """A page that frames another one at the width of a phone; a window cannot be that narrow."""
    frame = page.with_name(f"frame-{width}.html")
    frame.write_text(
        "<!doctype html><body style='margin:0'><p id=size></p>"
        "<script>onmessage = (event) => {"
        " document.getElementById('size').textContent = event.data; }</script>"
        f"<iframe src='{page.name}' style='border:0;width:{width}px;height:{height}px'></iframe>"
    )
    return frame
