"""docs/metrics.md is what the rows of the metrics make; every row is served; Prometheus likes their names."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from dispatcher.metrics.intake_metrics import (
    AdmissionMetrics,
    BatchMetrics,
    IntakeMetrics,
    WebhookMetrics,
    withdrawals_gauge,
)
from dispatcher.metrics.intake_rows import ROWS as INTAKE_ROWS
from monitoring.metric_page import rendered
from tests.conftest import ROOT
from workers.metrics.worker_metrics import WorkerMetrics
from workers.metrics.worker_rows import ROWS as WORKER_ROWS

PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
INTAKE, WORKER, SHADOW, DRIFT, PROCESS, ARTICLE = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]


def listed(section: str) -> dict[str, str]:
    return dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", section, re.MULTILINE))


def served(registry: CollectorRegistry) -> dict[str, str]:
    lines = generate_latest(registry).decode().splitlines()
    types = dict(line.split()[2:4] for line in lines if line.startswith("# TYPE "))
    return {name: kind for name, kind in types.items() if not name.endswith("_created")}


def intake() -> CollectorRegistry:
    registry = IntakeMetrics().registry
    AdmissionMetrics(registry)
    BatchMetrics(registry, lambda: 0)
    WebhookMetrics(registry)
    withdrawals_gauge(registry)
    return registry


def worker() -> CollectorRegistry:
    return WorkerMetrics("smollm2", "int4").registry


def test_the_tables_are_what_the_rows_make() -> None:
    assert rendered(PAGE) == PAGE, "python -m monitoring.metric_page writes them"


def test_every_metric_of_the_intake_is_listed() -> None:
    registry = intake()

    assert listed(INTAKE) | listed(PROCESS) == served(registry)


def test_every_metric_of_the_worker_is_listed() -> None:
    assert listed(WORKER) == served(worker())


def test_no_page_names_a_metric_that_does_not_exist() -> None:
    known = {*listed(INTAKE), *listed(WORKER), *listed(SHADOW), *listed(DRIFT), *listed(PROCESS)}
    known |= {f"{name}_{part}" for name in known for part in ("bucket", "sum", "count")}
    pages = sorted((ROOT / "docs").rglob("*.md"))
    named = {
        (path.name, name)
        for path in pages
        for name in re.findall(r"`(?:rate\()?(bitladder_\w+)", path.read_text("utf-8"))
    }

    assert len(named) > 40
    assert {(page, name) for page, name in named if name not in known and not name.endswith("_")} == set()


def test_a_label_whose_values_come_from_outside_has_a_maximum() -> None:
    configured = {"model", "tier", "lane", "floor", "origin", "queue"}
    unbounded = {
        (row.name, label)
        for row in (*INTAKE_ROWS, *WORKER_ROWS)
        for label, most in row.labels.items()
        if most is None and label not in configured
    }

    assert unbounded == set()


# What `promtool check metrics` goes by (promlint): units that are not base units, or abbreviated; words for types.
ODD_PARTS = re.compile(
    r"_(bits?|milli\w*|micro\w*|nano\w*|kilo\w*|mega\w*|minutes?|hours?|days?|weeks?|percent|(kibi|mebi|gibi)\w*"
    r"|fahrenheit|kelvin|gauge|counter|histogram|summary|untyped)(_|$)|_(s|ms|us|ns|sec|b|kb|mb|gb|tb|pb|m|h|d)$|[A-Z:]"
)


@pytest.mark.parametrize("registry", [intake(), worker()], ids=["intake", "worker"])
def test_names_follow_prometheus_rules(registry: CollectorRegistry) -> None:
    kinds = served(registry)
    labels = {name for metric in registry.collect() for sample in metric.samples for name in sample.labels}

    assert [name for name in kinds if ODD_PARTS.search(name)] == []
    assert [name for name, kind in kinds.items() if name.endswith("_total") != (kind == "counter")] == []
    assert [name for name in kinds if name.endswith(("_bucket", "_count", "_sum"))] == []
    assert [name for name in labels if not re.fullmatch(r"[a-z_]+", name)] == []
    assert [metric.name for metric in registry.collect() if not metric.documentation] == []


@pytest.mark.skipif(not shutil.which("promtool"), reason="`make servers` installs promtool")
@pytest.mark.parametrize("registry", [intake(), worker()], ids=["intake", "worker"])
def test_promtool_has_nothing_to_say(registry: CollectorRegistry) -> None:
    checked = subprocess.run(["promtool", "check", "metrics"], input=generate_latest(registry), capture_output=True)

    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
