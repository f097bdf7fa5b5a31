"""Break a stack in four ways, and write when each is seen: `python -m docs.operating.guides.found_in_a_minute`.

It takes six minutes: the last alert waits for five. The page found-in-a-minute.md is what it writes. Its status is 1
where the page, `bitladder top` or the list of alerts needs more than a minute.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import yaml
from playwright.sync_api import Page

from bitladder.settings.access import key_hash, new_key
from tests.conftest import ROOT, OwnValkey, Process, Stack, free_port, wait_until
from tests.dispatcher.ops.browser import Tab, chromium

PAGE = Path(__file__).parent / "found-in-a-minute.md"
OPS, ACME, GLOBEX = new_key(), new_key(), new_key()
LONGEST_S, ALERTS_S = 60.0, 400.0


@dataclass
class Trouble:
    """One fault, and the words by which each view shows it."""

    title: str
    shown: str  # what was done, as a reader would do it
    begin: Callable[[], None]
    page: str
    top: str
    alert: str
    seen: dict[str, float] = field(default_factory=dict)  # view -> after how many seconds
    lines: dict[str, str] = field(default_factory=dict)
    began: float = 0.0

    def note(self, view: str, line: str) -> None:
        if view not in self.seen:
            self.seen[view], self.lines[view] = time.monotonic() - self.began, " ".join(line.split())


class Scene:
    """A stack of echo engines with keys, a real Prometheus with the alerts that ship, and a browser on the page."""

    def __init__(self, folder: Path) -> None:
        self.valkey = OwnValkey(folder / "valkey", "--maxmemory", "1gb")
        self.valkey.start()
        self.stack = Stack(self.valkey.url, BITLADDER_AUTH__KEYS=_keys(), BITLADDER_FILES__STORE=str(folder / "files"))
        self.stack.output = (folder / "log").open("wb")
        self.stack.http.headers["Authorization"] = f"Bearer {OPS}"
        self.stack.intake()
        self.workers: dict[str, Process] = {}
        self.is_over = threading.Event()
        ports = {tier: str(free_port()) for tier in ("int4", "int8", "fp8")}
        for tier, port in ports.items():
            self.workers[tier] = self.stack.start("worker", "--tier", tier, "--metrics-port", port)
        wait_until(lambda: all(self.stack.live(tier) for tier in ports), "a worker of each tier is live")
        self.prometheus = f"http://127.0.0.1:{free_port()}"
        self._server = subprocess.Popen(self._command(folder, ports), stderr=subprocess.DEVNULL)  # noqa: S603
        wait_until(self._has_figures, "Prometheus has figures", 60)

    def _command(self, folder: Path, ports: dict[str, str]) -> list[str]:
        intake = {"job_name": "bitladder-intake", "authorization": {"credentials": OPS}}
        config = {
            "global": {"scrape_interval": "5s", "evaluation_interval": "5s"},
            "rule_files": [str(ROOT / "monitoring" / "alerts.yaml")],
            "scrape_configs": [
                intake | {"static_configs": [{"targets": [f"127.0.0.1:{self.stack.port}"]}]},
                {
                    "job_name": "bitladder-worker",
                    "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in ports.values()]}],
                },
            ],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
        listening = f"--web.listen-address={self.prometheus.removeprefix('http://')}"
        places = (f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}")
        return ["prometheus", *places, listening]

    def _has_figures(self) -> bool:
        with contextlib.suppress(httpx2.HTTPError):
            query = {"query": "count(bitladder_live_workers == 1)"}
            answer = httpx2.get(f"{self.prometheus}/api/v1/query", params=query)
            return answer.status_code == 200 and bool(answer.json()["data"]["result"])
        return False

    def alerts(self) -> dict[str, dict[str, Any]]:
        active = httpx2.get(f"{self.prometheus}/api/v1/alerts").json()["data"]["alerts"]
        return {alert["labels"]["alertname"]: alert for alert in active}

    def top(self) -> str:
        environment = self.stack.environment | {"BITLADDER_URL": self.stack.url, "BITLADDER_API_KEY": OPS}
        command = [sys.executable, "-m", "bitladder.cli.main", "top"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
        return done.stdout + done.stderr

    def submit(self, key: str, prompt: str, max_tokens: int = 40, **headers: str) -> int:
        sent = {"Authorization": f"Bearer {key}"} | {name.replace("_", "-"): value for name, value in headers.items()}
        body = {"model": "smollm2", "prompt": prompt, "max_tokens": max_tokens}
        answer = httpx2.post(f"{self.stack.url}/v1/jobs", json=body, headers=sent, timeout=20)
        return answer.status_code

    def stop(self) -> None:
        self._server.kill()
        self._server.wait()
        self.stack.kill()
        self.valkey.kill()


def _keys() -> str:
    keys: dict[str, dict[str, Any]] = {
        "ops": {"hash": key_hash(OPS.encode()), "tenant": "ops", "scopes": ["ops"]},
        "acme": {"hash": key_hash(ACME.encode()), "tenant": "acme"},
        "globex": {"hash": key_hash(GLOBEX.encode()), "tenant": "globex", "budget_per_day": 0.0001},
    }
    tables = (
        f"{name} = {{{', '.join(f'{part} = {json.dumps(value)}' for part, value in key.items())}}}"
        for name, key in keys.items()
    )
    return f"{{{', '.join(tables)}}}"


def _troubles(scene: Scene) -> list[Trouble]:
    def fill() -> None:
        changed = scene.stack.http.patch("/v1/settings", json={"set": {"queue.max_depth": 100}, "reason": "a trial"})
        changed.raise_for_status()
        wait_until(
            lambda: scene.submit(ACME, "a slow echo:slow answer", 2000, X_Max_Tier="int4") == 429,
            "the queue is full",
            50,
        )
        while not scene.is_over.wait(0.5):
            scene.submit(ACME, "one more", X_Max_Tier="int4")

    def poison() -> None:
        scene.submit(ACME, "echo:crash in whichever engine", X_Min_Tier="int8")

    def spend() -> None:
        wait_until(lambda: scene.submit(GLOBEX, "what is it?", X_Max_Tier="int8") == 429, "the budget is used up", 30)

    return [
        Trouble(
            "A tier breaks",
            "kill -9 the only worker of fp8",
            lambda: scene.workers["fp8"].kill(),
            "fp8: no live worker",
            "fp8: no live worker",
            "TierWithoutWorkers",
        ),
        Trouble(
            "A queue is full",
            "jobs for int4 alone (X-Max-Tier), until 429 queue_full (queue.max_depth = 100)",
            fill,
            "new ones are refused",
            "new ones are refused",
            "RequestsRefused",
        ),
        Trouble(
            "A job poisons its engines",
            "a prompt that crashes the echo engine",
            poison,
            "dead letter more",
            "dead letter more",
            "DeadLetters",
        ),
        Trouble(
            "A budget is used up",
            "requests of the key globex, until 429 budget_exceeded",
            spend,
            "globex has used up",
            "globex has used up",
            "BudgetExceeded",
        ),
    ]


def _watch(scene: Scene, troubles: list[Trouble], page: Page) -> None:
    """Look at every view until each shows every trouble, and every alert fires."""
    end = time.monotonic() + ALERTS_S
    while time.monotonic() < end and any(len(trouble.seen) < 4 for trouble in troubles):
        notes = page.get_by_role("region", name="Notes").inner_text().splitlines()
        shown, alerts = scene.top().splitlines(), scene.alerts()
        for trouble in troubles:
            for view, lines, words in (("page", notes, trouble.page), ("bitladder top", shown, trouble.top)):
                for line in lines:
                    if words in line:
                        trouble.note(view, line.partition(" docs/operating/alerts/")[0])
            if alert := alerts.get(trouble.alert):
                trouble.note("alert, listed", f"{trouble.alert} ({alert['annotations']['summary']})")
                if alert["state"] == "firing":
                    trouble.note("alert, sent", f"{trouble.alert} ({alert['labels']['severity']})")
        time.sleep(1)


def _written(troubles: list[Trouble]) -> Iterator[str]:
    yield _INTRODUCTION.format(date=datetime.now(UTC).date())
    for trouble in troubles:
        yield f"\n## {trouble.title}\n\nDone: {trouble.shown}.\n\n| seen in | after s | as |\n| --- | --- | --- |\n"
        for view, after in trouble.seen.items():
            yield f"| {view} | {after:.0f} | {trouble.lines[view].replace('|', '/')} |\n"
    yield _BY_HAND


_INTRODUCTION = """# Found in a minute

What an operator sees of four faults, and when. `python -m docs.operating.guides.found_in_a_minute` made this page on
{date}: a stack of echo engines with API keys at the settings that ship, Debian's Prometheus with the alerts that
ship (a look every 5 s), and a browser on the page at /. It fails where the page, `bitladder top` or the list of alerts
needs more than a minute. An alert is *sent* once it has stood in the list for as long as its rule says, so that a
restart wakes nobody ([alerts.yaml](../../../monitoring/alerts.yaml)); each has a page that says what to do
([alerts](../alerts.md)).
"""

_BY_HAND = """
## By hand

Beside `make up ENGINE=echo`, with `bitladder` on the PATH ([commands.md](../commands.md)). `bitladder top` or the page
shows it meanwhile. `up` starts a killed worker again at once, so this one is stopped:

```sh
bitladder workers                                      # the pid of the worker of fp8
kill -STOP PID                                         # a tier without workers, once its lease ends; -CONT ends it
bitladder submit "echo:crash" --min-tier int8 --wait   # a job that poisons its engines
bitladder settings set queue.max_depth=100
bitladder pause --tier int4
bitladder loadtest --rate 100 --duration 2s --modes jobs=1 --max-tier int4=1 --timeout 1s    # a full queue
bitladder purge --tier int4 --yes                      # and all as it was:
bitladder resume --tier int4
bitladder settings unset --all
```
"""


def main() -> int:
    """Run all of it; its status."""
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(Path(folder))
        try:
            with chromium() as browser:
                page = Tab(browser, scene.stack.url, OPS).open()
                troubles = _troubles(scene)
                for trouble in troubles:
                    trouble.began = time.monotonic()
                    threading.Thread(target=trouble.begin, daemon=True).start()
                _watch(scene, troubles, page)
        finally:
            scene.is_over.set()
            scene.stop()
    PAGE.write_text("".join(_written(troubles)), encoding="utf-8")
    views = ("page", "bitladder top", "alert, listed")
    late = [f"{each.title}: {view}" for each in troubles for view in views if each.seen.get(view, 1e9) > LONGEST_S]
    sys.stdout.write("".join(f"later than a minute, or never: {one}\n" for one in late))
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
