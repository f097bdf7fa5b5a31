"""Take the screenshots of the operators' page: `python -m docs.operating.screenshots.draw`, two minutes.

A real stack on the echo engine, in trouble: a tier loses its worker, its queue fills, prompts crash engines and break,
and a tenant's budget is used up. Each picture is of the moment at which the page shows it.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from bitladder.settings.access import key_hash, new_key
from tests.conftest import OwnValkey, Process, Stack
from tests.dispatcher.ops.browser import Tab, chromium

FOLDER = Path(__file__).parent
OPS, ACME, GLOBEX = new_key(), new_key(), new_key()
BODY = {"model": "smollm2", "max_tokens": 40}
# A minute of good days, so that the charts show what changed.
CALM_S, TROUBLE_S = 60, 25
MAX_BYTES = 150_000


def main() -> None:
    """Take all pictures."""
    with _stack() as (stack, int4), chromium() as browser:
        traffic = _Traffic(stack.url)
        traffic.start()
        try:
            time.sleep(CALM_S)
            began = time.monotonic()
            int4.kill()
            _break(stack.http)
            time.sleep(TROUBLE_S)
            _take_pictures(browser, stack, began)
        finally:
            traffic.stopped.set()
            traffic.join()


def _take_pictures(browser: Browser, stack: Stack, began: float) -> None:
    for name, view, is_shown in _PICTURES:
        scheme = "dark" if name.endswith("-dark") else "light"
        tab = Tab(browser, stack.url, OPS, viewport={"width": 1200, "height": 800}, color_scheme=scheme)
        page = tab.open(view(stack.http))
        is_shown(page)
        _save(page, name)
        tab.close()
        print(f"{name}: {time.monotonic() - began:.0f} s after the trouble began")  # noqa: T201


@contextlib.contextmanager
def _stack() -> Iterator[tuple[Stack, Process]]:
    with tempfile.TemporaryDirectory() as folder:
        valkey = OwnValkey(Path(folder) / "valkey")
        valkey.start()
        stack = Stack(
            valkey.url,
            BITLADDER_AUTH__KEYS=_keys(),
            BITLADDER_ECHO__TOKENS_PER_S="100",
            BITLADDER_LOG__LEVEL="error",
        )
        stack.http.headers["Authorization"] = f"Bearer {OPS}"
        try:
            stack.intake()
            int4, _, _ = [stack.worker(tier) for tier in ("int4", "int8", "fp8")]
            yield stack, int4
        finally:
            stack.kill()
            valkey.kill()


def _keys() -> str:
    keys: dict[str, dict[str, Any]] = {
        "ops": {"hash": key_hash(OPS.encode()), "tenant": "ops", "scopes": ["submit", "read", "ops"]},
        "acme": {"hash": key_hash(ACME.encode()), "tenant": "acme"},
        "globex": {"hash": key_hash(GLOBEX.encode()), "tenant": "globex", "budget_per_day": 0.0001},
    }
    tables = (
        f"{name} = {{{', '.join(f'{field} = {json.dumps(value)}' for field, value in key.items())}}}"
        for name, key in keys.items()
    )
    return f"{{{', '.join(tables)}}}"


class _Traffic(threading.Thread):
    """Requests of two tenants, of all lanes, some a second, until it is told to stop."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url, self._sent = url, 0
        self.stopped = threading.Event()

    def run(self) -> None:
        with httpx2.Client(base_url=self._url, timeout=30) as client:
            while not self.stopped.wait(0.3):
                for _ in range(8):
                    self._send(client)

    def _send(self, client: httpx2.Client) -> None:
        self._sent += 1
        key = GLOBEX if self._sent % 4 == 0 else ACME
        prompt = "what is this " * 3 if self._sent % 3 else f"§{self._sent}zq# fj0x9f3a Ünïcödé vk=7%&/ an odd question"
        headers = {"Authorization": f"Bearer {key}", "X-Priority": str(1 + self._sent % 8), "X-Tags": "chat,web"}
        headers |= {"X-Max-Latency-Ms": "500"}
        client.post("/v1/jobs", json=BODY | {"prompt": prompt}, headers=headers)


def _break(client: httpx2.Client) -> None:
    """Fill the queue of int4 with jobs that no other tier may serve, and send prompts that break and crash."""

    def fill() -> None:
        for number in range(120):
            headers = {"X-Max-Tier": "int4", "X-Tags": "nightly"}
            client.post("/v1/jobs", json=BODY | {"prompt": f"line {number}"}, headers=headers)

    thread = threading.Thread(target=fill)
    thread.start()
    for prompt in ("echo:fault in every engine", "echo:fault again", "echo:crash"):
        headers = {"X-Min-Tier": "int8", "X-Tags": "poisoned"}
        client.post("/v1/jobs", json=BODY | {"prompt": prompt}, headers=headers)
    thread.join()


def _shows_overview(page: Page) -> None:
    expect(page.locator("#connection")).to_have_text("live")
    expect(page.get_by_role("region", name="Notes")).to_contain_text("int4: no live worker")
    page.wait_for_selector(".charts canvas")


def _shows_rows(page: Page) -> None:
    page.wait_for_selector("tbody tr")


def _shows_reasons(page: Page) -> None:
    expect(page.get_by_role("region", name="Executions and escalations")).to_be_visible()


def _dead_job(client: httpx2.Client) -> str:
    return f"job/{client.get('/v1/dead-letters').json()['data'][0]['id']}"


_View = Callable[[httpx2.Client], str]
_PICTURES: tuple[tuple[str, _View, Callable[[Page], None]], ...] = (
    ("overview", lambda _: "", _shows_overview),
    ("overview-dark", lambda _: "", _shows_overview),
    ("dead-letters", lambda _: "dead-letters", _shows_rows),
    ("job", _dead_job, _shows_reasons),
    ("jobs", lambda _: "jobs?state=queued&tag=nightly", _shows_rows),
    ("tenants", lambda _: "tenants", _shows_rows),
)


def _save(page: Page, name: str) -> None:
    path = FOLDER / f"{name}.png"
    page.evaluate("document.getElementById('title').blur()")
    page.screenshot(path=path, full_page=name not in ("jobs", "tenants", "dead-letters"))
    Image.open(path).convert("RGB").quantize(96, dither=Image.Dither.NONE).save(path, optimize=True)
    if path.stat().st_size > MAX_BYTES:
        raise SystemExit(f"{path.name} has {path.stat().st_size} bytes, more than {MAX_BYTES}")


if __name__ == "__main__":
    main()
