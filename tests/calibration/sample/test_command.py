"""The command line of `calibrate sample`: what it is given, what it shows, and what it refuses before it reads."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from calibration.commands.app import main
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


SQL = "INSERT INTO prompts VALUES ('Why is the sky blue?');\n"
YAML = "- prompt: Why is the sky blue?\n  tier: int4\n"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (SQL.encode() * 500, "'I' (expecting value)"),
        (YAML.encode() * 500, "'-' (expecting value)"),
        (b'"Why is the sky blue?"\n' * 500, "a text"),
        (b"\x28\xb5\x2f\xfd" + b"\x00\x01" * 500, "Zstandard"),
        (gzip.compress(gzip.compress(SQL.encode(), mtime=0), mtime=0), "gzip in gzip"),
        (gzip.compress(b"x", mtime=0)[:12] + b"\xff" * 500, "the end of what can be inflated (gzip is damaged)"),
        ('{"prompt": "Wie schön!"}\n'.encode("latin-1") * 500, "bytes that are no UTF-8, or half a surrogate pair"),
        (b"{'prompt': 'Why?'}\n" * 500, '"\'" (expecting property name enclosed in double quotes)'),
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_file_that_is_not_understood_is_one_line_with_its_name_the_place_and_what_is_there(
    tmp_path: Path, capsys: Capsys, name: str, content: bytes, found: str
) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / name).write_bytes(content)
    write_jsonl(tmp_path / "logs" / "good.jsonl", prompts(60))

    status = sample("--source", str(tmp_path / "logs"), "--out", str(tmp_path / "set"))

    said = capsys.readouterr().err.splitlines()[-1]
    assert status == 2
    assert said.startswith(f"error: {tmp_path}/logs/{name}: ")
    assert " bytes were not understood, the first at byte " in said
    assert f': found {found}, expected JSON objects with "prompt", "messages" or "text"' in said
    assert "sky" not in said
    assert not (tmp_path / "set").exists()
    assert not list(tmp_path.glob(".set.progress"))


def test_all_that_is_lost_is_shown_where_it_is_little(tmp_path: Path, capsys: Capsys) -> None:
    write_jsonl(tmp_path / "logs" / "a.jsonl", prompts(400))
    (tmp_path / "logs" / "b.json").write_text('{"prompt": "cut o')
    (tmp_path / "logs" / "c.json").write_text("{")

    assert sample("--source", str(tmp_path / "logs"), "--out", str(tmp_path / "set"), "--json") == 0

    printed = capsys.readouterr()
    assert f"left out: {tmp_path}/logs/b.json: 17 of 17 bytes were not understood, the first at byte 11" in printed.err
    counts = json.loads(printed.out)["counts"]
    assert counts["bytes"] == {"understood": (tmp_path / "logs" / "a.jsonl").stat().st_size - 400, "not understood": 18}
    assert counts["skipped"] == {"cut off": 2}


@pytest.mark.parametrize("torn", [1, 4])
def test_half_of_a_file_may_be_torn_and_not_more(tmp_path: Path, capsys: Capsys, torn: int) -> None:
    line = json.dumps({"prompt": prompts(1)[0]})
    rows = [json.dumps({"prompt": text}) + "\n" + (line[:-2] + "\n") * torn for text in prompts(60)]
    (tmp_path / "a.jsonl").write_text("".join(rows))

    status = sample("--source", str(tmp_path / "a.jsonl"), "--out", str(tmp_path / "set"))

    assert status == (0 if torn == 1 else 2)
    assert ("bytes were not understood" in capsys.readouterr().err) == (torn == 4)


def test_files_of_a_folder_that_are_not_read_are_counted(tmp_path: Path, capsys: Capsys) -> None:
    texts = prompts(80)
    write_jsonl(tmp_path / "logs" / "A.JSONL", texts[:40])
    write_jsonl(tmp_path / "logs" / "old" / "a.jsonl.1", texts[40:])
    (tmp_path / "logs" / "b\x1b.zst").write_bytes(b"\x28\xb5\x2f\xfd")

    assert sample("--source", str(tmp_path / "logs"), "--out", str(tmp_path / "set"), "--json") == 0

    printed = capsys.readouterr()
    assert json.loads(printed.out)["counts"]["prompts"] == 40
    assert r"left out: 2 files that are not named as JSON is, such as b\x1b.zst" in printed.err


def test_every_group_of_the_records_is_in_both_halves_and_is_counted(tmp_path: Path, capsys: Capsys) -> None:
    logs = tmp_path / "logs"
    write_jsonl(logs / "a.jsonl", prompts(400, seed=1), route="tickets")
    write_jsonl(logs / "b.jsonl", prompts(20, seed=2), route="sql")
    write_jsonl(logs / "c.jsonl", prompts(20, seed=3))
    asked = ("--source", str(logs), "--out", str(tmp_path / "set"), "--count", "20", "--heldout", "10")

    assert sample(*asked, "--group", "route") == 0

    shown = " ".join(capsys.readouterr().out.split())
    assert "by group" in shown
    assert "tickets 400" in shown
    manifest = json.loads((tmp_path / "set" / "manifest.json").read_text())
    assert manifest["request"]["group"] == "route"
    assert manifest["strata"]["group"] == {"tickets": 400, "sql": 20, "": 20}
    for split in ("calibration", "heldout"):
        lines = (tmp_path / "set" / f"{split}.jsonl").read_text().splitlines()
        assert {json.loads(line)["group"] for line in lines} == {"tickets", "sql", ""}, split

    assert sample(*asked) == 0

    assert "group" not in json.loads((tmp_path / "set" / "manifest.json").read_text())["strata"]


def test_packaged_texts_have_no_groups(tmp_path: Path, capsys: Capsys) -> None:
    assert sample("--source", "packaged", "--group", "route", "--out", str(tmp_path / "set")) == 2

    assert "--group is for records of one's own, got --source packaged" in capsys.readouterr().err


def test_a_field_that_no_record_has_is_named(tmp_path: Path, capsys: Capsys) -> None:
    write_jsonl(tmp_path / "logs" / "a.jsonl", prompts(60), route="tickets")
    asked = ("--source", str(tmp_path / "logs"), "--out", str(tmp_path / "set"), "--count", "20", "--heldout", "10")

    assert sample(*asked, "--group", "rout") == 0

    assert "no record has a field 'rout' with a text, a number or a truth value" in capsys.readouterr().err
