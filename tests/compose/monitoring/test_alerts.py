"""Every alert fires when it should and not otherwise, has a page, and goes by metrics that exist."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.expressions import metrics_of
from tests.compose.monitoring.command_lines import unknown_parts
from tests.compose.monitoring.expressions import known_metrics
from tests.conftest import ROOT

FILE = ROOT / "monitoring" / "alerts.yaml"
GROUPS = yaml.safe_load(FILE.read_text(encoding="utf-8"))["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
CASES = yaml.safe_load((Path(__file__).parent / "alert_cases.yaml").read_text(encoding="utf-8"))
PAGES = sorted((ROOT / "docs" / "operating" / "alerts").glob("*.md"))

needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="`make servers` installs promtool")


def promtool(*args: str, folder: Path) -> str:
    ran = subprocess.run(["promtool", *args], cwd=folder, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def case(alert: str, series: dict[str, Any], at: str, labels: dict[str, str] | None = None) -> dict[str, Any]:
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": str(values)} for name, values in series.items()],
        "alert_rule_test": [
            {"eval_time": at, "alertname": alert, "exp_alerts": [{"exp_labels": labels}] if labels else []}
        ],
    }


@needs_promtool
def test_promtool_accepts_the_rules() -> None:
    assert f"{len(RULES)} rules found" in promtool("check", "rules", str(FILE), folder=ROOT)


@needs_promtool
@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group["name"])
def test_every_alert_fires_and_does_not_fire(group: dict[str, Any], tmp_path: Path) -> None:
    # promtool compares annotations by their text, which the cases leave out.
    rules = [{key: value for key, value in rule.items() if key != "annotations"} for rule in group["rules"]]
    cases = [item for item in CASES if item["alert"] in {rule.get("alert") for rule in rules}]
    tests = [case(item["alert"], **item[kind]) for item in cases for kind in ("fires", "quiet")]
    files = {
        "rules.yaml": {"groups": [{"name": group["name"], "rules": rules}]},
        "cases.yaml": {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests},
    }
    for name, content in files.items():
        (tmp_path / name).write_text(yaml.safe_dump(content), encoding="utf-8")

    promtool("test", "rules", "cases.yaml", folder=tmp_path)


def test_every_alert_has_a_case() -> None:
    assert [item["alert"] for item in CASES] == list(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_to_do(name: str) -> None:
    rule = ALERTS[name]

    assert {"for", "keep_firing_for"} <= rule.keys()
    assert rule["labels"]["severity"] in {"page", "warning"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert f"`{name}`" in (ROOT / rule["annotations"]["runbook_url"]).read_text(encoding="utf-8")


def test_every_page_belongs_to_an_alert() -> None:
    named = {rule["annotations"]["runbook_url"] for rule in ALERTS.values()}

    assert named == {path.relative_to(ROOT).as_posix() for path in PAGES}


def test_rules_go_by_metrics_that_exist() -> None:
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    named = {name for rule in RULES for name in metrics_of(rule["expr"])}

    assert len(named) > 20
    assert named - known_metrics() - recorded == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_a_page_has_commands_that_exist(page: Path) -> None:
    lines = re.findall(r"^\$ bitladder (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)

    assert lines
    assert [unknown_parts(line) for line in lines] == [[]] * len(lines)
