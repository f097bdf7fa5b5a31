"""The command on the files that its page shows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from calibration.commands.app import main
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "calibration" / "simulate.md").read_text(encoding="utf-8")


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Return the options that name the page's fleet and curves."""
    for kind, name in (("toml", "fleet.toml"), ("json", "curves.json")):
        block = re.search(rf"^```{kind}\n(.+?)^```", PAGE, re.MULTILINE | re.DOTALL)
        assert block
        (tmp_path / name).write_text(block[1])
    fleet, curves = str(tmp_path / "fleet.toml"), str(tmp_path / "curves.json")
    return ["--fleet", fleet, "--curves", curves, "--config", str(ROOT / "bitladder.toml")]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["simulate", *arguments])
    shown = capsys.readouterr()
    return int(ended.value.code or 0), shown.out, shown.err


def test_the_example_of_the_page_prints_figures_as_json_and_as_tables(
    files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*files, "--arrivals", "poisson:rate=30", "--shares", "int4=0.7,int8=0.2,fp8=0.1", "--slo", "ttft=1"]
    status, out, _ = run(capsys, *options, "--count", "2000", "--json")
    _, again, _ = run(capsys, *options, "--count", "2000", "--json")
    _, tables, _ = run(capsys, *options, "--count", "2000")
    figures = json.loads(out)

    assert status == 0
    assert out == again
    assert figures["requests"] == 2000
    assert figures["overflow"]["ways"]["int4 to fp8"] > 0
    assert sum(row["share"] for row in figures["tiers"]) == pytest.approx(1)
    assert 0 < figures["goodput"]["share"] < 1
    assert figures["tiers"][2]["curve"]["mode"] == "SILICON (measured kernels)"
    assert f"ttft_s\t{figures['ttft_s']['mean']}" in tables


def test_the_policy_decides_by_recorded_scores_as_it_does_when_it_serves(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = '{"at_s": %d, "input_tokens": 9, "output_tokens": 9, "score": {"entropy": %s}}\n'
    (tmp_path / "r.jsonl").write_text("".join(line % (index, 3.0 + index) for index in range(4)))
    options = [*files, "--arrivals", str(tmp_path / "r.jsonl"), "--json"]

    _, by_rule, _ = run(capsys, *options, "--policy", "article")
    _, fixed, _ = run(capsys, *options, "--policy", "fixed:int8")

    assert [row["floor_share"] for row in json.loads(fixed)["tiers"]] == [0, 1, 0]
    shares = [row["floor_share"] for row in json.loads(by_rule)["tiers"]]
    assert sum(shares) == pytest.approx(1)
    assert shares[0] < 1


def test_fleets_and_policies_are_compared_in_a_table_and_on_a_page(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = (tmp_path / "fleet.toml").read_text().replace("workers = 4", "workers = 1")
    (tmp_path / "small.toml").write_text(small)
    page = tmp_path / "out" / "page.html"
    options = [*files, "--fleet", str(tmp_path / "small.toml"), "--policy", "fixed:int4", "--policy", "fixed:fp8"]
    options += ["--count", "300", "--arrivals", "poisson:rate=20", "--deadline", "5", "--tenants", "a=3,b=1"]

    _, out, _ = run(capsys, *options, "--json", "-o", str(page))
    _, shown, _ = run(capsys, *options)
    runs = {row["run"]: row for row in json.loads(out)["runs"]}

    assert list(runs) == [f"{fleet}, fixed:{tier}" for fleet in ("fleet", "small") for tier in ("int4", "fp8")]
    assert runs["small, fixed:int4"]["cost"]["rent"] < runs["fleet, fixed:int4"]["cost"]["rent"]
    assert sum(row["requests"] for row in runs["fleet, fixed:fp8"]["tenants"]) == 300
    assert [line.split("\t")[0] for line in shown.splitlines()] == ["run", *runs]
    assert page.read_text().count("data:image/png;base64,") == 5
    assert sorted(file.name for file in page.parent.iterdir()) == [
        *(f"page-{name}.png" for name in ("1", "2", "3", "4", "latency")),
        "page.html",
    ]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--arrivals", "poisson:rate=5"], "which request 1 lacks: state shares by floor"),
        (["--shares", "int3=1"], "a floor must be one of int4, int8, fp8, got 'int3'"),
        (["--shares", "int4=0.5,int4=0.2,fp8=0.3"], "--shares: 'int4' stands twice in 'int4=0.5,int4=0.2,fp8=0.3'"),
        (["--shares", "int4=0.7,int8=0.2"], "--shares must add up to 1, got 0.9 in 'int4=0.7,int8=0.2'"),
        (["--shares", "int4=x"], "--shares: 'int4' must be a number of 0 or more, got 'x'"),
        (["--arrivals", "none.csv.gz"], "--arrivals: there is no file 'none.csv.gz'"),
        (
            ["--policy", "fixed:int3"],
            "error: --policy: models.smollm2.policy fixed:int3: model smollm2 has tiers int4, int8, fp8, not 'int3'\n",
        ),
        (["--slo", "tpot=1"], "--slo: 'tpot' must be one of ttft, total, per_token"),
        (["--lengths", "normal"], "--lengths must be one of constant, exponential, zipf, got 'normal'"),
        (["--lengths", "zipf:input=0.5"], "--lengths: input must be 1 to 100000 tokens, got 0.5"),
        (["--model", "none"], "--model must be one of smollm2, got 'none'"),
    ],
)
def test_wrong_options_end_with_status_2_and_what_is_expected(
    options: list[str], says: str, files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, error = run(capsys, *files, *options)

    assert (status, out) == (2, "")
    assert says in error
