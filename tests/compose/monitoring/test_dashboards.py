"""The dashboards are what their code makes, and no panel asks for a metric or a label that does not exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.dashboards import FOLDER, rendered
from monitoring.expressions import chosen, metrics_of
from monitoring.vllm_names import VLLM
from tests.compose.monitoring.expressions import known_labels, known_metrics, labels_of
from tests.conftest import ROOT

BOARDS = {name: json.loads(text) for name, text in rendered().items()}
PANELS = [panel for board in BOARDS.values() for panel in board["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
LOGGERS = sorted((ROOT / ".venv-engine").glob("lib/python3*/site-packages/vllm/v1/metrics/loggers.py"))


def test_the_files_are_what_the_code_makes() -> None:
    kept = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()}

    assert kept == rendered(), "python -m monitoring.dashboards writes them"


def test_every_metric_of_a_panel_exists() -> None:
    named = {name for query in QUERIES for name in metrics_of(query)}

    assert len(named) > 50
    assert named - known_metrics() == set()


def test_every_label_of_a_panel_exists() -> None:
    wrong = {
        (name, label) for query in QUERIES for name, labels in labels_of(query) for label in labels - known_labels(name)
    }

    assert wrong == set()


@pytest.mark.skipif(not shutil.which("promtool"), reason="`make servers` installs promtool")
def test_prometheus_can_read_every_query(tmp_path: Path) -> None:
    rules = [{"record": f"panel:query_{number}", "expr": chosen(query)} for number, query in enumerate(QUERIES)]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}), "utf-8")
    ran = subprocess.run(["promtool", "check", "rules", str(tmp_path / "rules.yaml")], capture_output=True, text=True)

    assert ran.returncode == 0, ran.stderr


def test_a_panel_says_which_metrics_it_shows_and_why_it_may_be_empty() -> None:
    for panel in PANELS:
        read = {name for target in panel["targets"] for name in metrics_of(target["expr"])}
        named = {re.sub(r"_(bucket|sum|count)$", "", name) for name in read}
        assert [name for name in named if name not in panel["description"]] == [], panel["title"]
        assert panel["fieldConfig"]["defaults"]["noValue"], panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"


@pytest.mark.parametrize("name", BOARDS)
def test_a_board_has_its_variables_and_its_panels_once(name: str) -> None:
    board: dict[str, Any] = BOARDS[name]
    ids = [panel["id"] for panel in board["panels"]]

    assert (board["id"], board["uid"], board["graphTooltip"]) == (None, f"bitladder-{name.removesuffix('.json')}", 1)
    assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource", "job", "model", "tier"]
    assert len(ids) == len(set(ids))


@pytest.mark.skipif(not LOGGERS, reason="`make engine-env` installs vLLM")
def test_vllm_has_the_metrics_that_are_asked_for() -> None:
    names = set(re.findall(r'name="(vllm:\w+)"', LOGGERS[0].read_text(encoding="utf-8")))

    assert {name.removesuffix("_total") for name in VLLM} - names == set()
