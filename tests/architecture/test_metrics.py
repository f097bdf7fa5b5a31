"""docs/metrics.md lists every metric of the intake and of the worker, and no other."""

from __future__ import annotations

import re

from prometheus_client import CollectorRegistry

from dispatcher.metrics import AdmissionMetrics, IntakeMetrics, withdrawals_gauge
from tests.conftest import ROOT
from workers.metrics import WorkerMetrics

PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
INTAKE, WORKER = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]


def listed(section: str) -> dict[str, str]:
    return dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", section, re.MULTILINE))


def served(registry: CollectorRegistry) -> dict[str, str]:
    return {metric.name + ("_total" if metric.type == "counter" else ""): metric.type for metric in registry.collect()}


def test_every_metric_of_the_intake_is_listed() -> None:
    registry = IntakeMetrics().registry
    AdmissionMetrics(registry)
    withdrawals_gauge(registry)

    assert listed(INTAKE) == served(registry)


def test_every_metric_of_the_worker_is_listed() -> None:
    assert listed(WORKER) == served(WorkerMetrics("smollm2", "int4").registry)


def test_no_page_names_a_metric_that_does_not_exist() -> None:
    known = {*listed(INTAKE), *listed(WORKER)}
    known |= {f"{name}_{part}" for name in known for part in ("bucket", "sum", "count")}
    pages = sorted((ROOT / "docs").rglob("*.md"))
    named = {
        (path.name, name)
        for path in pages
        for name in re.findall(r"`(?:rate\()?(bitladder_\w+)", path.read_text("utf-8"))
    }

    assert len(named) > 40
    assert {(page, name) for page, name in named if name not in known and not name.endswith("_")} == set()
