"""The page at /docs, in a real browser where there is one."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.conftest import Stack

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def stack(make_stack: Callable[..., Stack]) -> Stack:
    stack = make_stack()
    stack.intake()
    return stack


def test_the_page_names_files_of_the_intake_alone(stack: Stack) -> None:
    page = stack.http.get("/docs")

    named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert sorted(named) == ["docs/page.css", "docs/page.js", "docs/rapidoc-min.js"]
    for name in named:
        assert stack.http.get(f"/{name}").status_code == 200
    assert stack.http.get("/docs/README.md").status_code == 404
    assert stack.http.get("/docs/..%2fdocs_page.py").status_code == 404


def test_the_packed_script_reaches_clients_that_unpack_nothing(stack: Stack) -> None:
    packed = stack.http.get("/docs/rapidoc-min.js")
    plain = stack.http.get("/docs/rapidoc-min.js", headers={"Accept-Encoding": "identity"})

    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert plain.content == packed.content  # which the client has unpacked
    assert int(packed.headers["content-length"]) < len(plain.content) / 3


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_a_browser_shows_the_document_without_breaking_the_policy(stack: Stack, tmp_path: Path) -> None:
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--enable-logging=stderr",
    ]
    command = [str(CHROMIUM), *flags, f"--user-data-dir={tmp_path}", "--virtual-time-budget=20000", "--dump-dom"]

    done = subprocess.run([*command, f"{stack.url}/docs"], capture_output=True, text=True, timeout=120, check=True)

    assert f'data-shown="{version("bitladder")}"' in done.stdout
    assert "Content Security Policy" not in done.stderr
