"""The command line of `calibrate sample`: what it is given, what it shows, and what it refuses before it reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from calibration.cli import main
from calibration.commands.sample import open_source
from tests.calibration.sample.conftest import prompts, write_jsonl

Capsys = pytest.CaptureFixture[str]


def sample(*options: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["sample", *options])
    return int(ended.value.code or 0)


def test_markup_and_control_characters_of_strangers_are_shown_as_they_are(tmp_path: Path, capsys: Capsys) -> None:
    tier = "[/x][bold]\x1b[2J"
    logs = write_jsonl(tmp_path / "logs[" / "old]" / "a.jsonl", prompts(40), tier=tier)

    status = sample("--source", str(logs), "--out", str(tmp_path / "set[/b]"))

    shown = "".join(capsys.readouterr().out.split())
    assert status == 0
    assert r"[/x][bold]\x1b[2J40" in shown
    assert "old]/a.jsonl" in shown
    assert json.loads((tmp_path / "set[" / "b]" / "manifest.json").read_text())["strata"]["tier"] == {tier: 40}


@pytest.mark.parametrize("out", ["three.jsonl", "three.jsonl/set", ".", "/", "/proc/nowhere/set", "set"])
def test_a_place_that_is_none_for_a_set_is_one_line_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys, out: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("three.jsonl").write_text('{"prompt": "precious"}\n')
    Path("set").mkdir()
    Path("set/thesis.txt").write_text("precious")
    before = sorted(path.name for path in tmp_path.rglob("*"))

    status = sample("--source", "three.jsonl", "--least", "2", "--out", out)

    said = capsys.readouterr().err
    assert status == 2
    assert said.startswith("error: --")
    assert said.count("\n") == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_a_set_is_not_written_over_its_source(tmp_path: Path, capsys: Capsys) -> None:
    assert sample("--out", str(tmp_path / "set")) == 0

    for source in ("set", "set/calibration.jsonl"):
        assert sample("--source", str(tmp_path / source), "--out", str(tmp_path / "set"), "--least", "2") == 2
        assert "--source must not be or lie in --out" in capsys.readouterr().err


def test_the_same_relative_path_elsewhere_is_another_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys
) -> None:
    for seed, folder in enumerate(("one", "other")):
        write_jsonl(tmp_path / folder / "logs" / "a.jsonl", prompts(40, seed))
        monkeypatch.chdir(tmp_path / folder)
        assert sample("--source", "logs/a.jsonl", "--out", str(tmp_path / "set"), "--json") == 0
        made = json.loads(capsys.readouterr().out)
        assert not made["finished_before"]
        assert made["source"] == str(tmp_path / folder / "logs" / "a.jsonl")


def test_a_set_is_not_written_into_its_source(tmp_path: Path, capsys: Capsys) -> None:
    write_jsonl(tmp_path / "logs" / "a.jsonl", prompts(40))

    assert sample("--source", str(tmp_path / "logs"), "--out", str(tmp_path / "logs" / "set")) == 2

    assert "--out must not be or lie in --source" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["a.jsonl"]


def test_a_half_without_a_text_is_said_to_be_empty(tmp_path: Path, capsys: Capsys) -> None:
    logs = write_jsonl(tmp_path / "a.jsonl", prompts(2, seed=3))

    assert sample("--source", str(logs), "--least", "2", "--out", str(tmp_path / "set")) == 0

    assert "heldout.jsonl is empty: so few prompts were found" in capsys.readouterr().err


@pytest.mark.parametrize("manifest", ["[" * 100_000, "{"])
def test_somebody_s_manifest_is_no_set_however_it_is_nested(tmp_path: Path, capsys: Capsys, manifest: str) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "manifest.json").write_text(manifest)

    assert sample("--out", str(tmp_path / "set")) == 2

    assert "it holds something else" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "prefix"),
    [("s3://logs/app#1/", "app#1/"), ("s3://logs/what?x/y%20", "what?x/y%20"), ("s3://logs", ""), ("s3://logs/", "")],
)
def test_a_prefix_in_s3_is_taken_as_it_is(source: str, prefix: str) -> None:
    found = open_source(source, "http://127.0.0.1:1", None)

    assert found.name == f"s3://logs/{prefix} at http://127.0.0.1:1"


@pytest.mark.parametrize("source", ["s3:logs/a", "s3:///a", "s3://"])
def test_a_source_without_a_bucket_is_refused(source: str, capsys: Capsys) -> None:
    assert sample("--source", source) == 2

    assert f"--source must be s3://bucket/prefix, got '{source}'" in capsys.readouterr().err
