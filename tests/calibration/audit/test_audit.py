"""The article's audit of 1,000 prompts, as a command: figures, plots and a page."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from PIL import Image

from calibration.audit.load_prompts import from_source
from calibration.sample.source import LocalFiles
from calibration.texts.packaged import calibration_texts, heldout_texts
from tests.calibration.audit.corpus import write
from tests.conftest import ROOT
from tests.warm_start import WarmStarts

DRAWING = WarmStarts("calibration.commands.audit", "calibration.commands.sample", "calibration.audit.plots")
Report = tuple[Path, dict[str, Any]]


def run(*options: str, entropy_bits: str = "4.5", plots: bool = False) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),  # matplotlib keeps its list of fonts there
        "PYTHONPATH": str(ROOT),
        "BITLADDER_CONFIG": str(ROOT / "bitladder.toml"),
        "BITLADDER_POLICY__ENTROPY_BITS": entropy_bits,
    }
    # To draw takes 1.7 s of CPU.
    return DRAWING.run("calibration", "audit", *options, "--plots" if plots else "--no-plots", env=environment)


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("corpus") / "thousand.jsonl")


@pytest.fixture(scope="module")
def report(thousand: Path) -> Report:
    folder = thousand.parent / "report"
    done = run("--source", str(thousand), "--out", str(folder), "--json", plots=True)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_the_shares_of_the_floors_are_the_policys(report: Report) -> None:
    _, figures = report

    shares = figures["floors_by_kind"]["all"]
    assert figures["prompts"] == 1000
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["int8"] == pytest.approx(figures["above_entropy_bits"])
    assert shares["fp8"] == 0  # nobody's priority or latency budget is known
    for kind, its in figures["floors_by_kind"].items():
        assert sum(its.values()) == pytest.approx(1), kind
    weighted = sum(count * figures["floors_by_kind"][kind]["int4"] for kind, count in figures["kinds"].items())
    assert weighted / 1000 == pytest.approx(shares["int4"])


def test_the_rules_and_other_thresholds_add_up_to_the_floors(report: Report) -> None:
    folder, figures = report

    rules, curve = figures["floors_by_rule"], figures["floors_by_threshold"]
    above = [shares["int8"] for _, shares in sorted(curve.items(), key=lambda item: float(item[0]))]
    assert rules == {
        "entropy <= 4.5": {"int4": figures["floors_by_kind"]["all"]["int4"], "int8": 0, "fp8": 0},
        "entropy > 4.5": {"int4": 0, "int8": figures["floors_by_kind"]["all"]["int8"], "fp8": 0},
    }
    assert curve["4.5"] == figures["floors_by_kind"]["all"]
    assert above == sorted(above, reverse=True)
    assert (above[0], above[-1]) == (1, 0)
    page = (folder / "audit.html").read_text(encoding="utf-8")
    assert "<td>entropy &gt; 4.5</td><td>0.0%</td>" in page
    assert f"<td>4.5</td><td>{curve['4.5']['int4']:.1%}</td>" in page


def test_the_thousand_prompts_are_spread_as_the_docs_say(report: Report) -> None:
    """docs/calibration/audit.md shows these figures; Python's own texts differ a little from version to version."""
    _, figures = report

    assert 0.73 < figures["floors_by_kind"]["all"]["int4"] < 0.82
    assert 4.3 < figures["features_by_kind"]["entropy"]["all"]["p50"] < 4.42
    assert set(figures["kinds"]) == {"prose", "code", "json", "chat", "log", "markup"}
    assert abs(figures["correlation_with_entropy"]["zlib_ratio"]) < 0.25


def test_the_threshold_of_the_configuration_counts(thousand: Path, tmp_path: Path) -> None:
    done = run("--source", str(thousand), "--out", str(tmp_path / "audit"), "--json", entropy_bits="4.2")

    figures = json.loads(done.stdout)
    assert figures["policy"]["entropy_bits"] == 4.2
    assert 0.65 < figures["floors_by_kind"]["all"]["int8"] < 0.9


def test_a_fixed_policy_sends_all_to_its_tier(thousand: Path, tmp_path: Path) -> None:
    done = run("--source", str(thousand), "--out", str(tmp_path / "audit"), "--policy", "fixed:fp8", "--json")

    assert json.loads(done.stdout)["floors_by_kind"]["all"] == {"int4": 0, "int8": 0, "fp8": 1}


def test_prompts_with_an_envelope_are_routed_by_it(tmp_path: Path) -> None:
    path = tmp_path / "logs.jsonl"
    envelopes = [{}, {"priority": 8}, {"max_latency_ms": 900}, {"priority": 7, "max_latency_ms": 800}]
    path.write_text("".join(json.dumps({"prompt": "Why is the sky blue?", **asked}) + "\n" for asked in envelopes))

    done = run("--source", str(path), "--out", str(tmp_path / "audit"), "--json")

    figures = json.loads(done.stdout)
    assert figures["floors_by_kind"]["all"] == {"int4": 0.5, "int8": 0, "fp8": 0.5}
    assert figures["with_an_envelope"] == 3


def configuration(tmp_path: Path) -> Path:
    config = tmp_path / "bitladder.toml"
    text = (ROOT / "bitladder.toml").read_text(encoding="utf-8")
    rule = {"when": ["non_ascii > 0.05", "tokens > 1"], "floor": "int8"}
    by_route = {"kind": "threshold", "rules": [{"when": ["chat >= 1"], "floor": "fp8"}], "otherwise": "int4"}
    tables = {
        "by-text": {"kind": "threshold", "rules": [rule], "otherwise": "int4"},
        "loss": {"kind": "learned", "file": str(ROOT / "examples" / "learned_policy.json")},
        "by-route": by_route,
        "canary": {"kind": "split", "shares": {"by-text": 1.0}},
    }
    config.write_text(f"{text}\n{tomli_w.dumps({'policies': tables})}", encoding="utf-8")
    return config


def test_tables_of_the_configuration_are_audited_by_their_own_code(tmp_path: Path) -> None:
    path, config = tmp_path / "logs.jsonl", configuration(tmp_path)
    chat = {"messages": [{"role": "user", "content": "Why?"}]}
    entries = [{"prompt": "Straße, Mühe, Öl?"}, {"prompt": "Öl, Öl!"}, chat]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    options = ("--source", str(path), "--config", str(config), "--json")
    audits = [
        json.loads(run(*options, "--out", str(tmp_path / name), "--policy", name).stdout)
        for name in ("by-text", "by-route", "loss")
    ]

    by_text, by_route, loss = audits
    assert by_route["floors_by_kind"]["all"] == pytest.approx({"int4": 2 / 3, "int8": 0, "fp8": 1 / 3})
    assert by_text["floors_by_kind"]["all"] == pytest.approx({"int4": 1 / 3, "int8": 2 / 3, "fp8": 0})
    assert set(by_text["floors_by_rule"]) == {"non_ascii > 0.05 and tokens > 1", "no rule holds"}
    assert (by_text["decided_by"][:8], loss["decided_by"][:5]) == ("by-text:", "loss:")
    assert sum(loss["floors_by_kind"]["all"].values()) == pytest.approx(1)
    assert by_text["floors_by_threshold"] == {}


@pytest.mark.parametrize("policy", ["canary", "random:int4=1"])
def test_a_policy_that_draws_is_refused(tmp_path: Path, policy: str) -> None:
    config = str(configuration(tmp_path))
    done = run("--config", config, "--out", str(tmp_path / "audit"), "--policy", policy)

    assert done.returncode == 2
    assert f"--policy must decide by prompts, and {policy} draws" in done.stderr


@pytest.mark.parametrize("policy", ["fixed:int2", "fixed", "article:int4", "nonsense"])
def test_a_policy_that_does_not_exist_is_refused(thousand: Path, tmp_path: Path, policy: str) -> None:
    done = run("--source", str(thousand), "--out", str(tmp_path / "audit"), "--policy", policy)

    assert done.returncode == 2
    assert re.search(f"--policy .*{policy}", done.stderr)
    assert not (tmp_path / "audit").exists()


def test_every_plot_is_a_picture_and_in_the_page_which_loads_nothing(report: Report) -> None:
    folder, figures = report

    page = (folder / "audit.html").read_text(encoding="utf-8")
    plots = sorted(folder.glob("*.png"))
    assert [plot.stem for plot in plots] == ["entropy", "entropy_and_length", "features", "floors"]
    for plot in plots:
        with Image.open(plot) as image:
            colours = image.convert("RGB").getcolors(2**20) or []
        assert image.size[0] > 800
        assert len(colours) > 50
    assert page.count("data:image/png;base64,") == 4
    assert re.findall(r'(?:src|href)="(?!data:)', page) == []
    assert f"{figures['floors_by_kind']['all']['int4']:.1%}" in page


def test_a_report_can_be_read_by_its_owner_alone(report: Report) -> None:
    written = {path: path.stat().st_mode & 0o777 for path in [report[0], *report[0].rglob("*")]}

    assert written == {path: 0o700 if path.is_dir() else 0o600 for path in written}


def test_the_manifest_names_source_policy_and_files(report: Report, thousand: Path) -> None:
    folder, _ = report

    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["source"], manifest["prompts"], manifest["ladder"]) == (
        str(thousand),
        1000,
        ["int4", "int8", "fp8"],
    )
    assert manifest["policy"]["entropy_bits"] == 4.5
    assert {its["name"] for its in manifest["files"]} == {path.name for path in folder.iterdir()} - {"manifest.json"}


def test_a_sampled_set_can_be_audited_and_the_table_is_for_people(tmp_path: Path) -> None:
    sample = DRAWING.run("calibration", "sample", "--out", str(tmp_path / "set"), env={"PATH": os.environ["PATH"]})
    sample.check_returncode()

    done = run("--source", str(tmp_path / "set"), "--out", str(tmp_path / "audit"))

    assert done.returncode == 0, done.stderr
    assert f"audit  {len(calibration_texts() + heldout_texts())} prompts read" in done.stderr
    assert "audit  measuring: " in done.stderr
    assert "\nentropy\t" in done.stdout
    assert done.stdout.endswith(f"{tmp_path}/audit/audit.html\n")


def lines(path: Path, *entries: object) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return path


def test_what_each_tier_served_is_shown_in_the_page_and_in_plots_of_its_own(tmp_path: Path) -> None:
    sizes = {"int4": 10, "a$b<c>$": 100, "all": 1000}
    entries = [{"prompt": f"word {number} " * size, "tier": tier} for tier, size in sizes.items() for number in "ab"]
    path = lines(tmp_path / "logs.jsonl", *entries)

    done = run("--source", str(path), "--out", str(tmp_path / "audit"), plots=True)

    assert done.returncode == 0, done.stderr
    assert "audit  measuring and drawing: " in done.stderr
    page = (tmp_path / "audit" / "audit.html").read_text()
    figures = json.loads((tmp_path / "audit" / "audit.json").read_text())
    medians = page.partition("<h2>Medians by the tier that served it</h2>")[2]
    assert figures["tiers"] == {"int4": 2, "a$b<c>$": 2, "others": 2}
    assert [figures["features_by_tier"]["words"][tier]["p50"] for tier in ("all", "int4", "others")] == [200, 20, 2000]
    assert "<th>int4</th><th>a$b&lt;c&gt;$</th><th>others</th>" in medians
    assert "<td>words</td><td>200</td><td>20</td><td>200</td><td>2,000</td>" in medians
    assert {plot.stem for plot in (tmp_path / "audit").glob("*_by_tier.png")} == {
        "entropy_by_tier",
        "features_by_tier",
        "floors_by_tier",
    }
    assert page.count("data:image/png;base64,") == 7
    assert "features by tier" in done.stdout


def test_many_tiers_are_shown_with_the_smallest_ones_together(tmp_path: Path) -> None:
    entries = [{"prompt": "Hello", "tier": f"t{number}"} for number in range(200) for _ in range(1 + number // 199)]
    path = lines(tmp_path / "logs.jsonl", *entries)

    done = run("--source", str(path), "--out", str(tmp_path / "audit"), "--json")

    tiers = json.loads(done.stdout)["tiers"]
    assert len(tiers) == 13
    assert next(iter(tiers)) == "t199"
    assert tiers["others"] == 188


@pytest.mark.parametrize(
    ("prompt", "plots"), [("!!!", False), ("a", False), ("\U0001f600", False), ("\x00", True), ("x" * 50_000, False)]
)
def test_any_prompt_alone_can_be_audited(tmp_path: Path, prompt: str, *, plots: bool) -> None:
    path = lines(tmp_path / "logs.jsonl", {"prompt": prompt, "tier": "int4"}, {"prompt": prompt, "tier": "int8"})

    done = run("--source", str(path), "--out", str(tmp_path / "audit"), "--json", plots=plots)

    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert json.loads(done.stdout)["kinds"]


def test_entries_without_a_prompt_are_counted_by_reason_everywhere(tmp_path: Path) -> None:
    path = lines(tmp_path / "logs.jsonl", {"prompt": "Hello"}, {"prompt": ""}, {"body": 1}, {"body": 2}, 3)

    done = run("--source", str(path), "--out", str(tmp_path / "audit"))

    expected = {"no prompt, messages or text": 2, "empty": 1, "not an object": 1}
    assert json.loads((tmp_path / "audit" / "audit.json").read_text())["skipped"] == expected
    assert "<td>no prompt, messages or text</td><td>2</td>" in (tmp_path / "audit" / "audit.html").read_text()
    assert "entries without a prompt: 2 no prompt, messages or text, 1 empty, 1 not an object" in done.stdout


def test_a_source_without_a_prompt_is_refused_with_what_it_has_instead(tmp_path: Path) -> None:
    path = lines(tmp_path / "logs.jsonl", {"prompt": ""}, {"body": 1}, {"body": 2})

    done = run("--source", str(path), "--out", str(tmp_path / "audit"))

    assert done.returncode == 2
    reasons = "(skipped: 2 no prompt, messages or text, 1 empty)"
    assert f"error: {path} has no prompt to audit {reasons}\n" in done.stderr


def test_long_prompts_are_cut_and_counted(tmp_path: Path) -> None:
    path = lines(tmp_path / "logs.jsonl", {"prompt": "b" * 64}, {"prompt": "b" * 65}, {"prompt": "short"})

    done = run("--source", str(path), "--out", str(tmp_path / "audit"), "--max-chars", "64", "--json")

    figures = json.loads(done.stdout)
    assert figures["cut"] == 1
    assert figures["features_by_kind"]["characters"]["all"]["p95"] <= 64
    assert "1 were longer than is looked at" in (tmp_path / "audit" / "audit.html").read_text()


def test_many_giant_prompts_take_no_more_memory_than_their_beginnings(tmp_path: Path) -> None:
    path = lines(tmp_path / "logs.jsonl", *({"prompt": str(number) * 2**20} for number in range(60)))
    tracemalloc.start()
    try:
        found = from_source(LocalFiles(path), 1000, 1, 100, lambda done, total: None)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert [len(prompt.text) for prompt in found.prompts] == [100] * 60
    assert all(prompt.cut for prompt in found.prompts)
    assert peak < 20e6


def test_it_is_said_how_many_entries_were_read(tmp_path: Path) -> None:
    path = lines(tmp_path / "logs.jsonl", *({"prompt": ""} for _ in range(150)), *({"prompt": "a"} for _ in range(150)))
    said: list[tuple[int, int | None]] = []

    from_source(LocalFiles(path), 1000, 1, 100, lambda done, total: said.append((done, total)))

    assert said == [(100, None), (200, None), (300, None)]


def test_a_folder_that_is_no_audit_s_is_not_replaced_and_one_that_is_may_be(thousand: Path, tmp_path: Path) -> None:
    mine, audit = tmp_path / "mine", tmp_path / "audit"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")

    refused = [run("--source", "packaged", "--out", str(path)) for path in (mine, tmp_path / "file")]
    taken = [run("--source", "packaged", "--out", str(audit)) for _ in range(2)]

    assert [done.returncode for done in (*refused, *taken)] == [2, 2, 0, 0]
    assert "must be a new or empty folder" in refused[0].stderr
    assert "reading" not in refused[0].stderr
    assert (mine / "notes.txt").read_text() == (tmp_path / "file").read_text() == "mine"


def test_a_place_where_nothing_can_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")

    done = run("--source", "packaged", "--out", str(tmp_path / "file" / "audit"))

    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"error: --out: cannot write to '{tmp_path}/file': " in done.stderr


def test_of_a_large_source_a_fair_part_is_taken_with_its_repeats(tmp_path: Path) -> None:
    path = tmp_path / "logs.jsonl"
    path.write_text('{"prompt": "often"}\n' * 8000 + '{"prompt": "seldom"}\n' * 2000)

    found = from_source(LocalFiles(path), 1000, 1, 100, lambda done, total: None)
    taken = [prompt.text for prompt in found.prompts]

    assert len(taken) == 1000
    assert 150 < taken.count("seldom") < 250


def test_markup_and_control_characters_of_a_log_are_shown_as_they_are(tmp_path: Path) -> None:
    tier = "[/x]\x1b[2J\u202e"
    path = lines(tmp_path / "logs.jsonl", *({"prompt": f"Hello {number}", "tier": tier} for number in range(3)))

    done = run("--source", str(path), "--out", str(tmp_path / "audit"))

    page = (tmp_path / "audit" / "audit.html").read_text()
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    for text in (done.stdout, page):
        assert r"[/x]\x1b[2J\u202e" in text
        assert "\x1b" not in text
        assert "\u202e" not in text


@pytest.mark.parametrize(("manifest", "status"), [('{"name": "an app of the web"}', 0), ("[" * 100_000, 2)])
def test_a_folder_with_somebody_s_manifest_is_a_source_like_any_other(
    tmp_path: Path, manifest: str, status: int
) -> None:
    lines(tmp_path / "logs" / "a.jsonl", {"prompt": "Hello"})
    (tmp_path / "logs" / "manifest.json").write_text(manifest)

    done = run("--source", str(tmp_path / "logs"), "--out", str(tmp_path / "audit"), "--json")

    assert done.returncode == status, done.stderr
    if status == 0:
        assert json.loads(done.stdout)["prompts"] == 1
    else:
        assert "manifest.json: 99,999 of 99,999 bytes were not understood, the first at byte 1" in done.stderr


def test_a_link_leads_to_where_the_report_goes(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "audit").symlink_to(tmp_path / "elsewhere")

    done = [run("--source", "packaged", "--out", str(tmp_path / "audit")) for _ in range(2)]

    assert [process.returncode for process in done] == [0, 0]
    assert (tmp_path / "audit").is_symlink()
    assert (tmp_path / "elsewhere" / "audit.html").is_file()


def test_a_report_is_not_written_into_its_source(tmp_path: Path) -> None:
    lines(tmp_path / "logs" / "a.jsonl", {"prompt": "Hello"})

    done = run("--source", str(tmp_path / "logs"), "--out", str(tmp_path / "logs" / "audit"))

    assert done.returncode == 2
    assert "error: --out must not be or lie in --source, got " in done.stderr
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["a.jsonl"]


def test_a_file_that_is_not_understood_is_no_audit(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"prompt": f"Why {number}?"}) + "\n" for number in range(50)))
    (tmp_path / "b.jsonl").write_text("Why is the sky blue?\n" * 500)

    done = run("--source", str(tmp_path), "--out", str(tmp_path.parent / "audit"))

    assert done.returncode == 2
    assert (
        f"{tmp_path}/b.jsonl: 10,500 of 10,500 bytes were not understood, the first at byte 0: found 'W'" in done.stderr
    )


def test_two_audits_are_compared_by_floors_and_features(thousand: Path, report: Report, tmp_path: Path) -> None:
    earlier, _ = report
    same = run("--source", str(thousand), "--out", str(tmp_path / "same"), "--json", "--against", str(earlier))
    path = lines(tmp_path / "logs.jsonl", *({"prompt": f"id={n:09d} z=[{n * 7919}]"} for n in range(200)))
    other = run("--source", str(path), "--out", str(tmp_path / "other"), "--against", str(earlier))

    changes = json.loads(same.stdout)["changes"]
    assert not any(change["has_moved"] for change in (*changes["floors"].values(), *changes["medians"].values()))
    assert changes["floors"]["int4"]["difference"] == 0
    assert other.returncode == 0, other.stderr
    assert re.search(r"int8\t2\d\.\d%\t0\.0%\t-2\d\.\d%\t-\d+\.\d% to -\d+\.\d%\tmoved", other.stdout)
    assert "\ndigits\t" in other.stdout.partition("features that have moved")[2]


@pytest.mark.parametrize("content", [None, "[]", '{"prompts": 3}'])
def test_an_audit_that_is_none_is_refused_before_anything_is_read(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "audit.json").write_text(content)

    done = run("--source", "packaged", "--out", str(tmp_path / "audit"), "--against", str(tmp_path))

    assert done.returncode == 2
    assert done.stderr.startswith("error: --against")
    assert done.stderr.count("\n") == 1


def test_audits_of_two_ladders_are_not_compared(tmp_path: Path) -> None:
    path = lines(tmp_path / "logs.jsonl", {"prompt": "Hello"})
    run("--source", str(path), "--out", str(tmp_path / "one"))
    figures = json.loads((tmp_path / "one" / "audit.json").read_text())
    (tmp_path / "audit.json").write_text(json.dumps({**figures, "ladder": ["int2"]}))

    done = run("--source", str(path), "--out", str(tmp_path / "two"), "--against", str(tmp_path))

    assert done.returncode == 2
    assert "error: --against: its ladder is int2, this one's is int4, int8, fp8\n" in done.stderr
    assert not (tmp_path / "two").exists()
