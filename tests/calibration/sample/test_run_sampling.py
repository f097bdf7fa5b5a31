"""A run over files: what is written, what is skipped, what is refused, and how it goes on after it was cut off."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import textwrap
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from calibration.errors import CalibrationError, DiskFullError, InputError, SourceError
from calibration.sample import reservoir
from calibration.sample.near import NearIndex, Signature
from calibration.sample.prompt import BadEntry, Prompt
from calibration.sample.sets import SampledText, SampleSet, load, write_manifest, write_texts
from calibration.sample.source import LocalFiles, Packaged, Unit
from calibration.sample.understood import Extent
from calibration.texts.packaged import calibration_texts, heldout_texts
from tests.calibration.sample.conftest import RunSample, prompts, read_texts, skipped, write_jsonl
from tests.conftest import ROOT, wait_until


class Flaky:
    """A source that fails once it has given so many lines."""

    name = "flaky"

    def __init__(self, texts: list[str], after: int, error: BaseException) -> None:
        self._texts = texts
        self._after = after
        self._error = error
        self.given = 0
        self.extent = Extent()

    def units(self, after: str) -> Iterator[Unit]:
        if after < self.name:
            yield self

    def prompts(self) -> Iterator[list[Prompt | BadEntry]]:
        for text in self._texts:
            if self.given == self._after:
                raise self._error
            self.given += 1
            yield [Prompt(text)]


def test_a_folder_of_logs_becomes_a_set_with_a_manifest(tmp_path: Path, out: Path, run_sample: RunSample) -> None:
    logs = tmp_path / "logs"
    write_jsonl(logs / "a.jsonl", prompts(300), tier="int4")
    (logs / "b.jsonl.gz").write_bytes(gzip.compress(write_jsonl(tmp_path / "b", prompts(300, seed=2)).read_bytes()))
    (logs / "c.json").write_text(json.dumps({"prompt": "def area(r):\n    return 3.14 * r ** 2\n"}))

    made = run_sample(LocalFiles(logs))

    found, manifest = load(out), json.loads((out / "manifest.json").read_text())
    assert (len(found.calibration), len(found.heldout)) == (40, 10)
    assert {text.tier for text in found.calibration} == {"", "int4"}
    assert {text.kind for text in found.calibration + found.heldout} == {"prose", "code"}
    assert manifest == made.manifest
    assert manifest["counts"]["seen"] == 601
    assert manifest["strata"]["kind"] == {"prose": 600, "code": 1}
    assert manifest["request"]["source"] == str(logs)
    for file in manifest["files"]:
        assert hashlib.sha256((out / file["name"]).read_bytes()).hexdigest() == file["sha256"]


def test_bad_lines_are_skipped_counted_and_listed(tmp_path: Path, out: Path, run_sample: RunSample) -> None:
    path = write_jsonl(tmp_path / "logs" / "a.jsonl", prompts(100))
    with path.open("a") as file:
        file.write('{"prompt": "cut o\n{"question": "Why?"}\n{"prompt": ""}\n')

    made = run_sample(LocalFiles(tmp_path / "logs"))

    reasons = {"not JSON": 1, "no prompt, messages or text": 1, "empty": 1}
    assert made.manifest["counts"]["skipped"] == reasons
    assert skipped(out) == dict(zip((f"{path}:{number}" for number in (101, 102, 103)), reasons, strict=True))


def test_a_giant_prompt_is_cut_and_said_to_be(tmp_path: Path, out: Path, run_sample: RunSample) -> None:
    texts = [*prompts(30), " ".join(prompts(5000, seed=8))]
    write_jsonl(tmp_path / "logs.jsonl", texts)

    made = run_sample(LocalFiles(tmp_path / "logs.jsonl"))

    cut = [text for text in load(out).calibration + load(out).heldout if text.cut]
    assert made.manifest["counts"]["cut"] == 1
    assert [(len(text.text), text.length) for text in cut] == [(4000, "8192+")]


def test_three_prompts_are_refused_unless_asked_for(tmp_path: Path, out: Path, run_sample: RunSample) -> None:
    logs = LocalFiles(write_jsonl(tmp_path / "logs.jsonl", prompts(3) * 50))

    with pytest.raises(InputError, match="3 different prompts among 150 entries are too few"):
        run_sample(logs)
    assert not out.exists()

    run_sample(logs, min_prompts=3)
    assert len(load(out).calibration + load(out).heldout) == 3


def test_a_source_without_files_says_what_it_looked_for(tmp_path: Path, run_sample: RunSample) -> None:
    with pytest.raises(SourceError, match="there is no file or folder"):
        run_sample(LocalFiles(tmp_path / "missing"))
    with pytest.raises(SourceError, match=r"whose name ends in \.json, \.jsonl"):
        run_sample(LocalFiles(tmp_path))


def test_the_packaged_texts_keep_the_split_they_came_with(out: Path, run_sample: RunSample) -> None:
    run_sample(Packaged(), count=200, heldout=100)

    assert sorted(read_texts(out, "calibration")) == sorted(calibration_texts())
    assert sorted(read_texts(out, "heldout")) == sorted(heldout_texts())


def test_no_run_holds_out_what_another_one_calibrated_with(tmp_path: Path, out: Path, run_sample: RunSample) -> None:
    logs = LocalFiles(write_jsonl(tmp_path / "logs.jsonl", prompts(1000)))
    halves: dict[str, set[str]] = {"calibration": set(), "heldout": set()}

    for seed, heldout in ((1, 10), (2, 30), (3, 60)):
        run_sample(logs, seed=seed, heldout=heldout)
        for split, texts in halves.items():
            texts.update(read_texts(out, split))

    assert len(halves["heldout"]) > 70
    assert halves["calibration"] & halves["heldout"] == set()


def test_a_set_whose_halves_are_near_is_neither_written_nor_read(
    tmp_path: Path, out: Path, run_sample: RunSample, monkeypatch: pytest.MonkeyPatch
) -> None:
    def text(content: str) -> SampledText:
        return SampledText(id=content[:8], text=content, kind="prose", language="en", length="", tier="", cut=False)

    sentence = " ".join(prompts(4))
    mixed = SampleSet(calibration=(text(sentence),), heldout=(text(f"{sentence} Thanks!"),))
    write_manifest(tmp_path, {"files": write_texts(tmp_path, mixed, [])})
    with pytest.raises(CalibrationError, match="the set is mixed"):
        load(tmp_path)

    class Blind(NearIndex):
        def near(self, wanted: Signature) -> list[int]:
            del wanted
            return []

    monkeypatch.setattr(reservoir, "NearIndex", Blind)
    many = [f"{' '.join(prompts(4, seed))} {end}" for seed in range(30) for end in ("Thanks!", "Please.", "Now.")]
    with pytest.raises(CalibrationError, match="the set is mixed"):
        run_sample(Flaky(many, len(many), OSError("never")))
    assert not out.exists()


def test_a_set_that_was_changed_is_not_accepted(tmp_path: Path, out: Path, run_sample: RunSample) -> None:
    run_sample(LocalFiles(write_jsonl(tmp_path / "logs.jsonl", prompts(100))))
    with (out / "heldout.jsonl").open("a") as file:
        file.write((out / "calibration.jsonl").read_text().splitlines()[0] + "\n")
    with pytest.raises(InputError, match=r"was changed since it was sampled: heldout\.jsonl"):
        load(out)


def test_the_beginning_of_a_set_has_all_kinds(tmp_path: Path, out: Path, run_sample: RunSample) -> None:
    logs = tmp_path / "logs"
    texts = prompts(1500)
    write_jsonl(logs / "a.jsonl", texts[:900])
    write_jsonl(logs / "b.jsonl", [f"user: {text}\nassistant: Yes.\nuser: Why?" for text in texts[900:1200]])
    write_jsonl(logs / "c.jsonl", [f"import os\nx = 1\nprint('{text}')" for text in texts[1200:]])

    run_sample(LocalFiles(logs), count=200)

    kinds = [text.kind for text in load(out).calibration]
    for kind in ("prose", "chat", "code"):
        assert kinds.count(kind) > 20
        assert abs(kinds[:24].count(kind) - 24 * kinds.count(kind) / len(kinds)) < 1


def test_a_set_takes_the_place_of_a_set_and_of_nothing_else(tmp_path: Path, out: Path, run_sample: RunSample) -> None:
    logs = LocalFiles(write_jsonl(tmp_path / "logs.jsonl", prompts(100)))
    run_sample(logs)
    run_sample(logs, seed=1)
    (out / "thesis.txt").write_text("precious")

    source = Flaky(prompts(100), 100, OSError("never"))
    with pytest.raises(InputError, match=r"--out must be .*mine.: it holds something else"):
        run_sample(source, seed=2)

    assert source.given == 0
    assert (out / "thesis.txt").read_text() == "precious"
    assert json.loads((out / "manifest.json").read_text())["seed"] == 1


def test_what_is_finished_is_not_done_again(tmp_path: Path, out: Path, run_sample: RunSample) -> None:
    logs = LocalFiles(write_jsonl(tmp_path / "logs.jsonl", prompts(100)))
    first = run_sample(logs)
    written = (out / "calibration.jsonl").stat().st_mtime_ns

    assert run_sample(logs).skipped
    assert (out / "calibration.jsonl").stat().st_mtime_ns == written
    assert not run_sample(logs, seed=1).skipped
    assert not run_sample(logs, force=True, seed=1).skipped
    assert not first.skipped


@pytest.mark.parametrize("error", [OSError("the line broke"), KeyboardInterrupt()])
def test_a_run_that_was_cut_off_goes_on_where_it_was(out: Path, run_sample: RunSample, error: BaseException) -> None:
    texts = prompts(500)
    cut, rest, whole = Flaky(texts, 400, error), Flaky(texts, 500, error), Flaky(texts, 500, error)

    with pytest.raises(type(error)):
        run_sample(cut)
    assert not out.exists()
    assert [path.name for path in out.parent.iterdir() if path.name.endswith(".progress")] == [".mine.progress"]
    run_sample(rest)
    resumed, counts = read_texts(out, "calibration"), json.loads((out / "manifest.json").read_text())["counts"]
    run_sample(whole, force=True)

    assert counts["seen"] == 500
    assert resumed == read_texts(out, "calibration")
    assert not (out.parent / ".mine.progress").exists()


def test_a_run_that_was_refused_reads_its_source_again(tmp_path: Path, run_sample: RunSample) -> None:
    logs = write_jsonl(tmp_path / "logs.jsonl", prompts(10))
    with pytest.raises(InputError, match="10 different prompts among 10 entries are too few"):
        run_sample(LocalFiles(logs))
    write_jsonl(logs, prompts(110))

    made = run_sample(LocalFiles(logs))

    assert made.manifest["counts"]["seen"] == 110


def test_who_forces_a_run_gets_a_whole_one(run_sample: RunSample) -> None:
    with pytest.raises(OSError, match="broke"):
        run_sample(Flaky(prompts(100, seed=2), 50, OSError("broke")))

    made = run_sample(Flaky(prompts(40), 40, OSError("broke")), force=True)

    assert set(read_texts(made.folder, "calibration")) <= set(prompts(40))


def test_only_the_owner_can_read_a_bookmark(out: Path, run_sample: RunSample) -> None:
    with pytest.raises(OSError, match="broke"):
        run_sample(Flaky(prompts(100), 50, OSError("broke")))

    assert stat.S_IMODE((out.parent / ".mine.progress").stat().st_mode) == 0o600


def test_a_killed_run_goes_on_too(tmp_path: Path, out: Path) -> None:
    logs = write_jsonl(tmp_path / "logs.jsonl", prompts(20_000))
    script = f"""
        from calibration.sample import bookmark
        from calibration.commands.app import main
        bookmark._SAVE_EVERY_S = bookmark._SAVE_SHARE = 0.05
        main(["sample", "--source", {str(logs)!r}, "--out", {str(out)!r}, "--count", "40", "--heldout", "10", "--json"])
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    first = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until((out.parent / ".mine.progress").exists, "the first bookmark", 60)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert not out.exists()
    bookmark = msgspec.msgpack.decode(zlib.decompress((out.parent / ".mine.progress").read_bytes()))["progress"]

    second = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)

    assert second.returncode == 0, second.stderr
    manifest = json.loads(second.stdout)
    assert 0 < bookmark["seen"] < 20_000
    assert manifest["started_at"] == bookmark["started_at"]
    assert manifest["counts"]["seen"] == 20_000


def test_a_disk_that_fills_leaves_nothing_half_written_and_the_next_run_goes_on(
    out: Path, run_sample: RunSample
) -> None:
    source = Flaky([text * 20 for text in prompts(100)], 100, OSError("read again"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Enough for the bookmark, not for the texts: writing fails as on a disk without room.
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(DiskFullError, match=f"the disk of {out.parent} is full; make room or use --out"):
            run_sample(source)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert sorted(path.name for path in out.parent.iterdir()) == [".mine.progress"]

    made = run_sample(source)

    assert source.given == 100
    assert len(load(made.folder).calibration) == 40


def test_a_disk_without_room_for_a_bookmark_leaves_no_half_of_one(
    tmp_path: Path, out: Path, run_sample: RunSample
) -> None:
    logs = LocalFiles(write_jsonl(tmp_path / "logs.jsonl", prompts(200)))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(DiskFullError):
            run_sample(logs)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert list(out.parent.iterdir()) == []


def test_a_bookmark_of_another_request_is_not_used(run_sample: RunSample) -> None:
    texts = prompts(100)
    with pytest.raises(OSError, match="broke"):
        run_sample(Flaky(texts, 50, OSError("broke")))

    made = run_sample(Flaky(texts, 100, OSError("broke")), seed=4)

    assert (made.manifest["seed"], made.manifest["counts"]["seen"]) == (4, 100)


def test_a_finished_set_to_which_somebody_added_is_used_but_not_replaced(out: Path, run_sample: RunSample) -> None:
    run_sample(Packaged())
    (out / "notes.txt").write_text("mine")

    assert run_sample(Packaged()).skipped
    with pytest.raises(InputError, match=r"--out must be .* nobody added to"):
        run_sample(Packaged(), force=True)
    assert (out / "notes.txt").read_text() == "mine"
