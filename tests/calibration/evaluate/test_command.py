"""`calibrate evaluate` as it is typed: what it writes where, what it refuses before an engine starts, how it ends."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog
import tomli_w

from bitladder.settings.checkpoint_digest import checkpoint_digest
from calibration.artifacts.digest import file_digest
from calibration.artifacts.evaluation_report import read_report
from calibration.artifacts.manifest import write_manifest
from calibration.commands import app as cli
from calibration.commands import evaluate as command
from calibration.evaluate.choose_measures import EvaluationPlan
from calibration.evaluate.heldout import HeldoutText
from calibration.quantization.recipe import Storage, fingerprint
from calibration.quantization.standard_recipes import RECIPES
from tests.calibration.evaluate.test_candidates import MANIFEST, checkpoint
from tests.calibration.evaluate.test_engines import PACE, RIGHT
from tests.fake_vllm import install

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Return a function that evaluates two checkpoints, the second as a tier whose engine may not start."""
    config = tmp_path / "bitladder.toml"
    monkeypatch.setattr(command, "choose_measures", lambda options: EvaluationPlan([RIGHT, PACE]))
    monkeypatch.setattr(command, "engine_version", lambda vllm: "fake")
    for name in ("bf16", "new"):
        checkpoint(tmp_path / name, name.encode())

    def ran(*options: str, vllm_args: str = "", tier: str = "") -> tuple[int, str]:
        tier = f"[[models.m.tiers]]\nname = 'int4'\nvllm_args = [{vllm_args}]{tier}\n"
        config.write_text(f"[vllm]\npython = '{install(tmp_path)}'\n{tier}")
        given = [f"int4={tmp_path}/new", "--reference", str(tmp_path / "bf16"), "--config", str(config)]
        try:
            cli.main(["evaluate", *given, *options])
        except SystemExit as end:
            return int(end.code or 0), capsys.readouterr().err
        raise AssertionError("the command line ends the process")

    yield ran
    structlog.reset_defaults()  # the command has logs go to what was stderr


def test_the_report_of_a_whole_evaluation_is_written_and_status_is_0(run: Run, tmp_path: Path) -> None:
    status, _ = run("--out", str(tmp_path / "out"))

    report = read_report(tmp_path / "out" / "report.json")
    assert (status, [tier.tier for tier in report.tiers], report.failed) == (0, ["bf16", "int4"], {})
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*command.FILES, "results"}


def test_a_second_evaluation_keeps_the_report_of_the_first_under_its_digest(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("--out", str(out))
    first, digest = (out / "report.json").read_bytes(), file_digest(out / "report.json")

    status, _ = run("--out", str(out))

    assert status == 0
    assert (out / f"report-{digest[:16]}.json").read_bytes() == first
    assert (out / "report.json").read_bytes() != first


def test_what_the_tier_serves_is_measured_too_unless_that_is_declined(run: Run, tmp_path: Path) -> None:
    checkpoint(tmp_path / "old", b"old")
    served = f"\ncheckpoint = '{tmp_path / 'old'}'"

    alone, _ = run("--out", str(tmp_path / "alone"), "--without-served", tier=served)
    beside, _ = run("--out", str(tmp_path / "beside"), tier=served)

    reports = [read_report(tmp_path / name / "report.json") for name in ("alone", "beside")]
    assert (alone, beside) == (0, 0)
    assert [[tier.tier for tier in report.tiers] for report in reports] == [
        ["bf16", "int4"],
        ["bf16", "int4-served", "int4"],
    ]
    assert reports[0].tiers[-1].incumbent is None
    assert reports[1].tiers[-1].incumbent
    assert reports[1].settings["publish"]["min_tokens"] == 500
    assert reports[1].settings["evaluate"]["top"] == 64


def test_a_candidate_is_loaded_where_the_release_names_another_checkpoint_for_its_tier(
    run: Run, tmp_path: Path
) -> None:
    old = checkpoint(tmp_path / "old", b"old")
    evaluation = {"report": "0" * 64, "reference": "bf16", "made_at": "2026-11-24T12:00:00+00:00"}
    entry = {"checkpoint": str(old), "digest": checkpoint_digest(old), "evaluation": evaluation}
    release = {"version": 1, "published_at": "now", "models": {"m": {"tiers": {"int4": entry}}}}
    (tmp_path / "ladder.toml").write_text(tomli_w.dumps(release))

    status, _ = run("--out", str(tmp_path / "out"))

    report = read_report(tmp_path / "out" / "report.json")
    assert (status, [tier.checkpoint for tier in report.tiers[1:]]) == (0, [str(old), str(tmp_path / "new")])
    assert report.tiers[2].incumbent
    assert report.tiers[2].incumbent.digest == entry["digest"]


@pytest.mark.parametrize("umask", [0o000, pytest.param(0o027, marks=pytest.mark.long)])
def test_results_and_reports_can_be_read_by_their_owner_alone_under_any_umask(
    run: Run, tmp_path: Path, umask: int
) -> None:
    before = os.umask(umask)
    try:
        run("--out", str(tmp_path / "out"))
        run("--out", str(tmp_path / "out"))  # keeps the report of the first
    finally:
        os.umask(before)

    written = {path: path.stat().st_mode & 0o777 for path in [tmp_path / "out", *(tmp_path / "out").rglob("*")]}
    assert len(written) > len(command.FILES) + 3
    assert written == {path: 0o700 if path.is_dir() else 0o600 for path in written}


def test_with_an_engine_that_failed_the_report_has_the_others_and_status_is_1(run: Run, tmp_path: Path) -> None:
    status, said = run("--out", str(tmp_path / "out"), vllm_args="'--no-such-argument'")

    report = read_report(tmp_path / "out" / "report.json")
    assert (status, [tier.tier for tier in report.tiers], list(report.failed)) == (1, ["bf16"], ["int4"])
    assert "error: 1 of 2 checkpoints could not be measured:\nint4: vLLM ended" in said
    assert "--no-such-argument" in (tmp_path / "out" / "report.html").read_text()


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:  # noqa: ANN401  (whatever it is told)
        raise AssertionError("an engine was to be started")

    monkeypatch.setattr(command, "evaluate", never)


@pytest.mark.usefixtures("no_engine")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("report.json", "is not one of `bitladder calibrate evaluate`"),
        ("report.html", "is no evaluation's: choose another folder"),
        ("quality-cost.png", "is no evaluation's: choose another folder"),
        ("results", "cannot write to"),
        ("", "cannot write to"),
    ],
)
def test_what_is_not_of_an_evaluation_is_not_overwritten(run: Run, tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "out" if name else tmp_path).mkdir(exist_ok=True)
    (tmp_path / "out" / name).write_text("mine")

    status, error = run("--out", str(tmp_path / "out"))

    assert (status, error.count("\n")) == (2, 1)
    assert said in error
    assert (tmp_path / "out" / name).read_text() == "mine"


@pytest.mark.usefixtures("no_engine")
@pytest.mark.parametrize("name", ["new", "bf16/report"])
def test_nothing_is_written_into_a_checkpoint_that_is_measured(run: Run, tmp_path: Path, name: str) -> None:
    before = sorted(tmp_path.rglob("*"))

    status, error = run("--out", str(tmp_path / name))

    assert status == 2
    assert "error: --out must not be or lie in a checkpoint that is measured, got " in error
    assert [
        path for path in (tmp_path / name).parent.rglob("*") if path not in before and path.parent == tmp_path / name
    ] == []


def test_a_folder_with_other_things_is_written_to_and_they_stay(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")

    assert [run("--out", str(tmp_path / "out"))[0] for _ in range(2)] == [0, 0]
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


@pytest.mark.usefixtures("no_engine")
def test_a_full_disk_is_said_before_an_engine_is_started(run: Run, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        status, error = run("--out", str(tmp_path / "out"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert status == 4
    assert f"error: the disk of {tmp_path}/out is full; make room or use --out" in error


@pytest.mark.usefixtures("no_engine")
def test_texts_of_the_calibration_are_refused_before_an_engine_is_started(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = RECIPES["int4-gptq-g32"]
    its = fingerprint(recipe, Storage.PACKED, model={}, texts=["one text"], heldout=())
    write_manifest(tmp_path / "new", replace(MANIFEST, tier="int4", fingerprint=its))
    monkeypatch.setattr(
        command, "choose_measures", lambda options: EvaluationPlan([RIGHT], own_texts=[HeldoutText("text", "one text")])
    )

    status, error = run("--out", str(tmp_path / "out"))

    assert (status, error) == (
        2,
        "error: --heldout: checkpoint int4 was calibrated on these texts: take others\n",
    )
