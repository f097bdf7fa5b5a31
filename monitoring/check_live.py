"""Asks a real Prometheus for every query of every panel and alert, over a stack that runs.

python -m monitoring.check_live --intake 127.0.0.1:8000 --worker 127.0.0.1:9101 --worker 127.0.0.1:9102

It starts `prometheus` (Debian's package will do) for as long as it runs, sends requests of many kinds that the echo
engine understands (docs/operating/echo.md), and says which queries have no data and why. Its status is 1 where it does
not know why.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx2
import yaml

from monitoring.dashboards import rendered
from monitoring.expressions import chosen, metrics_of
from monitoring.sample_traffic import send

_ALERTS = Path(__file__).parent / "alerts.yaml"
_WINDOW = "1m"
# Metrics that such a run leaves without a series.
_EMPTY = {
    "vllm:": "no engine is vLLM",
    "bitladder_answers_judged_total": "no policy has a cascade",
    "bitladder_engine_restarts_total": "no engine was started again",
    "bitladder_expected_wait_error": "fewer than eight forecasts of a lane have an outcome",
    "bitladder_jobs_below_floor_total": "no tier was full while a client consented",
    "bitladder_jobs_dropped_total": "no record vanished",
    "bitladder_jobs_overflowed_total": "no queue was deep enough",
    "bitladder_paused": "nothing is paused",
    "bitladder_promise_broken": "no pass of `calibrate drift` writes its metrics beside this stack",
    "bitladder_prompts_captured_total": "capture is off",
    "bitladder_streams_broken_total": "no stream broke",
    "bitladder_webhook_deliveries_total": "there are no webhooks",
    "model:bitladder_deadline_misses:": "recorded once every 30 s, over windows that are longer than the run",
}


def main() -> int:
    """Run the check; its status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--intake", default="127.0.0.1:8000", help="host:port")
    parser.add_argument("--worker", action="append", default=[], help="host:port of /metrics; may be repeated")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--seconds", type=float, default=45, help="for how long requests are sent")
    parser.add_argument("--port", type=int, default=9099, help="of this Prometheus")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        prometheus = subprocess.Popen(_command(Path(folder), args), stderr=subprocess.DEVNULL)  # noqa: S603
        try:
            sent = send(f"http://{args.intake}", args.model, args.seconds)
            sys.stdout.write(f"{sent} requests sent\n")
            with httpx2.Client(base_url=f"http://127.0.0.1:{args.port}", timeout=30) as client:
                return _report(client)
        finally:
            prometheus.terminate()
            prometheus.wait(30)


def _command(folder: Path, args: argparse.Namespace) -> list[str]:
    jobs = {"bitladder-intake": [args.intake], "bitladder-worker": args.worker}
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "5s"},
        "rule_files": [str(_ALERTS)],
        "scrape_configs": [
            {"job_name": name, "static_configs": [{"targets": targets}]} for name, targets in jobs.items()
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{args.port}",
    ]


def _report(client: httpx2.Client) -> int:
    counts = {"data": 0, "empty on purpose": 0, "EMPTY": 0}
    for place, query in (*panel_queries(), *alert_metrics()):
        result = "data" if _has_data(client, query) else reason_of(query)
        kind = result if result == "data" else "empty on purpose" if result else "EMPTY"
        counts[kind] += 1
        if kind != "data":
            sys.stdout.write(f"{kind}: {place}: {result or query}\n")
    faults = _rule_faults(client)
    sys.stdout.write("".join(f"rule: {fault}\n" for fault in faults))
    sys.stdout.write(", ".join(f"{count} {kind}" for kind, count in counts.items()) + "\n")
    return 1 if counts["EMPTY"] or faults else 0


def panel_queries() -> list[tuple[str, str]]:
    """Return each panel's place and query, as Grafana sends it."""
    boards = [json.loads(text) for text in rendered().values()]
    panels = [(board["title"], panel) for board in boards for panel in board["panels"] if panel["type"] != "row"]
    return [
        (f"{title}, {panel['title']}", chosen(target["expr"], _WINDOW))
        for title, panel in panels
        for target in panel["targets"]
    ]


def alert_metrics() -> list[tuple[str, str]]:
    """Return each metric that a rule reads: the rule itself has data only while it fires."""
    rules = [rule for group in yaml.safe_load(_ALERTS.read_text("utf-8"))["groups"] for rule in group["rules"]]
    return [(rule.get("alert") or rule["record"], name) for rule in rules for name in sorted(metrics_of(rule["expr"]))]


def _has_data(client: httpx2.Client, query: str) -> bool:
    end = time.time()
    params = {"query": query, "start": str(end - 30), "end": str(end), "step": "5"}
    answer: dict[str, Any] = client.get("/api/v1/query_range", params=params).json()
    series = answer.get("data", {}).get("result", [])
    return any(not math.isnan(float(value)) for item in series for _, value in item["values"])


def reason_of(query: str) -> str:
    """Return why a query has no data at such a stack; '' where it should have some."""
    return next((why for name, why in _EMPTY.items() for read in metrics_of(query) if read.startswith(name)), "")


def _rule_faults(client: httpx2.Client) -> list[str]:
    groups = client.get("/api/v1/rules").json()["data"]["groups"]
    return [
        f"{rule['name']}: {rule['lastError']}" for group in groups for rule in group["rules"] if rule.get("lastError")
    ]


if __name__ == "__main__":
    sys.exit(main())
