"""The command on the files that its page shows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from calibration.commands.app import main
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "calibration" / "plan.md").read_text(encoding="utf-8")
POLICY = (
    '{"kind": "threshold", "rules": [{"when": ["entropy < 4"], "floor": "int4"}], "otherwise": "fp8", "version": 1}'
)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Return the arguments that name the page's offers and curves."""
    for kind, name in (("toml", "offers.toml"), ("json", "curves.json")):
        block = re.search(rf"^```{kind}\n(.+?)^```", PAGE, re.MULTILINE | re.DOTALL)
        assert block
        (tmp_path / name).write_text(block[1])
    return [str(tmp_path / "offers.toml"), "--curves", str(tmp_path / "curves.json")]


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["plan", *arguments])
    shown = capfd.readouterr()
    return int(ended.value.code or 0), shown.out, shown.err


def test_the_example_of_the_page_plans_simulates_and_writes_a_page_with_plots(
    files: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = re.search(r"^\$ bitladder calibrate plan (.+?)\n```", PAGE, re.MULTILINE | re.DOTALL)
    assert command
    options = command[1].replace("\\\n", " ").split()[3:]  # behind the files
    page = tmp_path / "plan.html"
    options[options.index("plan.html")] = str(page)

    status, out, err = run(capfd, *files, *options, "--json")
    figures = json.loads(out)

    assert status == 0
    assert "within the targets" in err
    assert figures["verification"]["attainment"] >= 0.99
    plan = figures["plan"]
    assert plan["price_per_hour"] == pytest.approx(sum(item["price_per_hour"] for item in plan["workers"]))
    assert sum(plan["tier_shares"].values()) == pytest.approx(1)
    assert plan["tier_shares"]["fp8"] >= 0.1 - 1e-6
    alone = [fleet for fleet in figures["alternatives"].values() if "price_per_hour" in fleet]
    assert figures["alternatives"]["only l4"] == {"not_possible": "the quality promise needs higher tiers too"}
    assert all(fleet["price_per_hour"] >= plan["price_per_hour"] - 1e-9 for fleet in alone)
    load, price = figures["frontiers"]
    assert len(load["points"]) == 3
    assert 1 <= price["break_even"]["price"] < 8
    assert (tmp_path / "plan-load.png").read_bytes().startswith(b"\x89PNG")
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/png") == 2
    assert "the curve is ideal" in text


def test_the_tables_name_the_workers_and_the_same_seed_gives_the_same(
    files: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    options = [*files, "--slo", "ttft=1,per_token=0.1", "--arrivals", "poisson:rate=5", "--count", "500"]

    status, out, err = run(capfd, *options, "--blind", "--rate", "peak")
    _, again, _ = run(capfd, *options, "--blind", "--rate", "peak")

    assert status == 0
    assert out == again
    assert "every request may be served at the lowest tier" in err
    assert re.match(r"[\d.]+ per hour: \d+ x [^;]+; simulated: \d+\.\d+% of the requests within the targets", out)
    assert "\nworker\tworkers\tslots" in out
    assert "(peak of 60 s windows; mean" in out


def test_a_policy_decides_the_shares_on_labelled_prompts(
    files: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "policy.json").write_text(POLICY)
    lines = [json.dumps({"features": {"entropy": entropy}}) for entropy in (3.0, 3.5, 3.9, 4.5)]
    (tmp_path / "labels.jsonl").write_text("\n".join([*lines, json.dumps({"prompt": "aaaa aaaa"})]))
    options = [*files, "--slo", "per_token=0.1", "--no-verify", "--json", "--policy", str(tmp_path / "policy.json")]

    _, out, _ = run(capfd, *options, "--labels", str(tmp_path / "labels.jsonl"))
    status, _, err = run(capfd, *options)

    assert json.loads(out)["may_be_served_at_or_below"] == pytest.approx({"int4": 0.8, "int8": 0.8, "fp8": 1.0})
    assert status == 2
    assert "either --shares, or --policy and --labels together" in err


@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        (["--slo", "ttft=0.01"], 2, "time to the first token: best 0.2"),
        (["--slo", "tpot=1"], 2, "--slo: 'tpot' must be one of ttft, total, per_token"),
        (["--slo", ""], 2, "--slo must name at least one of ttft, per_token, total"),
        (["--slo", "ttft=1", "--rate", "p99"], 2, "--rate must be one of mean, p95, peak, got 'p99'"),
        (["--slo", "ttft=1", "--frontier", "price:b200=1..2"], 2, "--frontier must be load=1,2,5 or price:DEVICE"),
        (["--slo", "ttft=1", "--shares", "int3=1"], 2, "--shares: 'int3' must be one of int4, int8, fp8"),
        (["--slo", "ttft=1", "--arrivals", "none.csv"], 2, "--arrivals: there is no file 'none.csv'"),
        (["--slo", "ttft=1", "--arrivals", "steady:rate=1"], 2, "arrivals must be one of poisson"),
    ],
)
def test_what_is_wrong_is_named(
    files: list[str], capfd: pytest.CaptureFixture[str], options: list[str], status: int, says: str
) -> None:
    ended, out, err = run(capfd, *files, *options)

    assert (ended, out) == (status, "")
    assert says in err


def test_the_fleet_is_written_as_files_that_simulate_reads(
    files: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    requests = ["--arrivals", "poisson:rate=20", "--count", "1000", "--lengths", "constant:input=512,output=256"]
    shares, folder = ["--shares", "int4=0.7,int8=0.2,fp8=0.1"], tmp_path / "fleet"
    _, out, _ = run(capfd, *files, "--slo", "ttft=1", "--json", *requests, *shares, "--fleet-out", str(folder))
    planned = json.loads(out)["verification"]
    floors = re.search(r"--shares (\S+)", (folder / "fleet.toml").read_text())
    assert floors
    options = (("--fleet", "fleet.toml"), ("--curves", "curves.json"), ("--config", "bitladder.toml"))
    named = [word for option, file in options for word in (option, str(folder / file))]

    with pytest.raises(SystemExit) as ended:
        main(["simulate", *named, *requests, "--shares", floors[1], "--json"])
    simulated = json.loads(capfd.readouterr().out)

    assert not ended.value.code
    assert {row["tier"]: row["workers"] for row in simulated["tiers"]} == planned["workers"]
    assert simulated["cost"]["rent"] == pytest.approx(planned["simulated"]["cost"]["rent"], rel=0.02)
    assert simulated["ttft_s"]["p95"] == pytest.approx(planned["simulated"]["ttft_s"]["p95"], rel=0.05)


def test_a_trace_that_is_not_in_order_is_planned_for_once_it_is_sorted(
    files: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lines = [{"at_s": at_s, "input_tokens": 100, "output_tokens": 10} for at_s in (0, 2, 1)]
    (tmp_path / "trace.jsonl").write_text("\n".join(map(json.dumps, lines)))
    options = [*files, "--slo", "ttft=1", "--no-verify", "--arrivals", str(tmp_path / "trace.jsonl")]

    refused, _, says = run(capfd, *options)
    status, _, _ = run(capfd, *options, "--sort")

    assert (refused, status) == (2, 0)
    assert "--sort sorts them" in says


def test_a_curve_with_a_hole_is_refused_by_name(
    files: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    curves = json.loads((tmp_path / "curves.json").read_text())
    curves["curves"][0]["points"] = [curves["curves"][0]["points"][index] for index in (0, 4)]
    (tmp_path / "curves.json").write_text(json.dumps(curves))

    status, _, err = run(capfd, *files, "--slo", "ttft=1")

    assert status == 2
    assert "curve 'l4-int4': there is a hole from concurrency 1 to 128" in err


def test_a_fleet_that_misses_in_the_simulation_ends_with_status_1(
    files: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    offers = (tmp_path / "offers.toml").read_text().replace("memory_gb = 80", "memory_gb = 80\ncount = 1")
    offers = offers.replace("memory_gb = 24 ", "count = 0\nmemory_gb = 24 ").replace("count = 8", "count = 0")
    (tmp_path / "offers.toml").write_text(offers)
    bursts = ["--arrivals", "bursts:rate=2,burst_rate=400,on_s=5,off_s=100", "--count", "3000", "--rate", "mean"]

    status, out, _ = run(capfd, *files, "--slo", "ttft=0.5,per_token=0.1", *bursts)

    assert status == 1
    assert "of the requests within the targets (wanted: 99.00%)" in out
