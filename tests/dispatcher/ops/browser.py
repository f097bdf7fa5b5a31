"""Debian's Chromium, driven by Playwright: a page's requests, what it complains of, and axe's rules."""

from __future__ import annotations

import contextlib
import gzip
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, Response, expect, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WAIT_MS = 30_000  # a busy machine
_AXE = Path(__file__).parent / "axe" / "axe.min.js.gz"


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Start the browser; it has no access to anything but what a test opens."""
    flags = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-gpu"]
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


class Tab:
    """One page of its own: nothing that another one kept."""

    def __init__(self, browser: Browser, url: str, key: str = "", **options: Any) -> None:  # noqa: ANN401  (Playwright's)
        # Without a GPU a moving picture takes a core.
        self._context = browser.new_context(**({"reduced_motion": "reduce"} | options))
        self.url, self.page = url, self._context.new_page()
        self.responses: list[Response] = []
        self.problems: list[str] = []  # what the page's scripts threw, and what its policy refused
        self.page.on("response", lambda response: self.responses.append(response))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", lambda line: self.problems.append(line.text) if "Policy" in line.text else None)
        self.page.set_default_timeout(WAIT_MS)
        if key:
            self.page.add_init_script(f"sessionStorage.setItem('bitladder.key', '{key}')")

    def open(self, view: str = "") -> Page:
        """Open a view, and wait until it says what it is."""
        where = f"{self.url}/#/{view}"
        if self.page.url == where:
            self.page.reload()
        else:
            self.page.evaluate("document.querySelector('h1')?.setAttribute('data-old', '')")
            self.page.goto(where)
        self.page.wait_for_selector("h1:not([data-old])")
        return self.page

    def broken_rules(self, *rules: str) -> list[str]:
        """Return which of axe's rules the page breaks, and where; of all rules where none is named."""
        if not self.page.evaluate("'axe' in window"):  # views change without a new document
            self.page.evaluate(_axe())
        options = {"resultTypes": ["violations"]} | ({"runOnly": list(rules)} if rules else {})
        found = self.page.evaluate("options => axe.run(document, options)", options)
        return [f"{one['id']}: {one['nodes'][0]['html'][:150]}" for one in found["violations"]]

    def close(self) -> None:
        self._context.close()


@cache
def _axe() -> str:
    return gzip.decompress(_AXE.read_bytes()).decode("utf-8")
