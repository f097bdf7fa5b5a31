"""No command of the control loop writes over a file that it reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from calibration.commands.app import main


@pytest.mark.parametrize(
    "command",
    [
        ["label", "FILE", "--reference", "a", "--tiers", "b", "-o", "FOLDER"],
        ["tune", "FILE", "-o", "FILE", "--cost", "a=1", "--cost", "b=2", "--threshold", "1"],
        ["tune", "other", "-o", "CURVES", "--load", "1", "--fleet", "other", "--curves", "CURVES", "--threshold", "1"],
        ["ablate", "FILE", "-o", "FOLDER", "--cost", "a=1", "--cost", "b=2"],
        ["confidence", "FILE", "-o", "FILE", "--model", "m", "--tier", "a", "--threshold", "1"],
        ["drift", "FILE", "--page", "FILE"],
        ["drift", "other", "--shadow", "FILE", "--metrics", "FILE"],
        ["simulate", "--fleet", "FILE", "--curves", "other", "-o", "FILE"],
        ["simulate", "--fleet", "other", "--curves", "other", "--arrivals", "FILE", "-o", "FILE"],
        ["plan", "FILE", "--curves", "other", "--slo", "ttft=1", "-o", "FILE"],
        ["plan", "other", "--curves", "CURVES", "--slo", "ttft=1", "--fleet-out", "FOLDER"],
    ],
    ids=lambda command: " ".join(command),
)
def test_an_output_that_is_an_input_is_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"FILE": tmp_path / "labels.jsonl", "CURVES": tmp_path / "curves.json", "FOLDER": tmp_path}
    for name in ("FILE", "CURVES"):
        places[name].write_text("what was there")

    with pytest.raises(SystemExit) as ended:
        main([str(places.get(argument, argument)) for argument in command])

    said = " ".join(capsys.readouterr().err.split())
    assert ended.value.code == 2, said
    assert "must not be" in said
    assert {places[name].read_text() for name in ("FILE", "CURVES")} == {"what was there"}
