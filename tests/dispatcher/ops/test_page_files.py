"""The operators' page as files: public, small, of this intake alone, and off where a setting says so."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from bitladder.settings.access import key_hash, new_key
from tests.conftest import ROOT, Stack

FOLDER = ROOT / "dispatcher" / "ops" / "page"
VENDOR = FOLDER / "vendor"
FILES = sorted(path for path in FOLDER.rglob("*") if path.suffix in {".html", ".js", ".css", ".svg"})
KEY = new_key()
KEYS = f'{{ops = {{hash = "{key_hash(KEY.encode())}", tenant = "acme", scopes = ["ops"]}}}}'
PREFIX = "/llm/v2"
MAX_BYTES = 200_000


@pytest.fixture(scope="module")
def stack(redis_url: str) -> Iterator[Stack]:
    redis.Redis.from_url(redis_url).flushall()
    stack = Stack(redis_url, BITLADDER_AUTH__KEYS=KEYS, BITLADDER_INTAKE__ROOT_PATH=PREFIX)
    stack.intake()
    yield stack
    stack.kill()


def urls_of(path: Path) -> list[str]:
    """Return what a file of the page loads, as the browser would ask for it below /."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".html":
        return re.findall(r'(?:src|href)="([^"#]+)"', text)
    return [f"ui/{name}" for name in re.findall(r'^import .* from "\./([^"]+)"', text, re.MULTILINE)]


def test_the_page_needs_no_key_and_holds_no_data(stack: Stack) -> None:
    page = stack.http.get("/")

    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.content == (FOLDER / "index.html").read_bytes()
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize("prefix", ["", PREFIX], ids=["taken off", "left in"])
def test_all_that_its_files_name_is_there_behind_a_prefix_too(stack: Stack, prefix: str) -> None:
    named = {url for path in FILES if path.parent == FOLDER for url in urls_of(path)}
    answers = [stack.http.get(f"{prefix}/{url}") for url in sorted(named)]

    assert {url.removeprefix("ui/") for url in named} == {path.name for path in FILES} - {"index.html"}
    assert {answer.status_code for answer in answers} == {200}


def test_it_is_below_200_kb_in_all() -> None:
    assert sum(path.stat().st_size for path in FILES) < MAX_BYTES


def test_the_wheel_has_them_all() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["dispatcher"]
    packed = {path for pattern in patterns for path in (ROOT / "dispatcher").glob(pattern)}

    assert {path for path in FOLDER.rglob("*") if path.is_file()} <= packed


def test_what_a_browser_has_already_is_not_sent_again(stack: Stack) -> None:
    first = stack.http.get("/ui/app.js")
    again = stack.http.get("/ui/app.js", headers={"If-None-Match": first.headers["etag"]})
    other = stack.http.get("/ui/app.js", headers={"If-None-Match": 'W/"other"'})
    plain = stack.http.get("/ui/app.js", headers={"Accept-Encoding": "identity"})

    assert first.headers["content-encoding"] == "gzip"
    assert (again.status_code, again.content) == (304, b"")
    assert (other.status_code, plain.headers.get("content-encoding")) == (200, None)
    assert plain.content == first.content == (FOLDER / "app.js").read_bytes()


@pytest.mark.parametrize("name", ["README.md", "uPlot-LICENSE.txt", "none.js", "..%2fpage_files.py", "vendor"])
def test_nothing_else_is_sent(stack: Stack, name: str) -> None:
    assert stack.http.get(f"/ui/{name}").status_code == 404


def test_files_of_others_are_those_that_their_note_says() -> None:
    noted = dict(re.findall(r"^\| (\S+) \|.*\| ([0-9a-f]{64}) \|$", (VENDOR / "README.md").read_text(), re.MULTILINE))
    there = [path for path in VENDOR.iterdir() if path.suffix in {".js", ".css"}]

    assert noted == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in there}
    assert "MIT" in (VENDOR / "uPlot-LICENSE.txt").read_text()


def test_a_key_is_told_its_scopes_and_never_itself(stack: Stack) -> None:
    shown = stack.http.get("/v1/key", headers={"Authorization": f"Bearer {KEY}"})

    assert shown.json() == {"object": "key", "name": "ops", "tenant": "acme", "scopes": ["ops"], "expires": None}
    assert KEY not in shown.text
    assert stack.http.get("/v1/key").status_code == 401


def test_the_page_can_be_switched_off(redis_url: str) -> None:
    stack = Stack(redis_url, BITLADDER_INTAKE__PAGE="false")
    stack.intake()
    answers = [stack.http.get(path).status_code for path in ("/", "/ui/app.js", "/health")]
    stack.kill()

    assert answers == [404, 404, 200]
