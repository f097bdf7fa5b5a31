"""The command line of `calibrate sample`: what it is given, what it shows, and what it refuses before it reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from calibration.cli import main
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
