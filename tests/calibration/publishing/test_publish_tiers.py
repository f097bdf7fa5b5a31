"""What is published is what was measured and is good enough; going back leads to what was there."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from bitladder.settings.checkpoint_digest import checkpoint_digest
from bitladder.settings.load import load_settings
from bitladder.settings.release import PublishedFigure, Release
from calibration.artifacts.evaluation_report import Estimate
from calibration.commands.releases import kept
from calibration.errors import InputError, PublishRefusedError
from calibration.publishing.incumbent import Waivers
from calibration.publishing.publish_tiers import Choice, publish, roll_back
from calibration.terminal import progress
from tests.calibration.inspection.tiny import Tiny
from tests.calibration.publishing.scene import GOOD, Scene, figure
from tests.warm_start import CALIBRATION


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def published(scene: Scene, report: Path, *tiers: str, waivers: Waivers | None = None, note: str = "") -> Release:
    choice = Choice(report=report, tiers=tiers, note=note, waivers=waivers or Waivers())
    return publish(choice, scene.settings, scene.store, lambda tier, text: None)


def back(scene: Scene, to: int | None = None) -> Release:
    return roll_back(to, scene.settings, scene.store, lambda tier, text: None)


def run(scene: Scene, *arguments: str, columns: int = 200) -> subprocess.CompletedProcess[str]:
    wide = {**os.environ, "COLUMNS": str(columns)}
    return CALIBRATION.run("calibration", *arguments, "--config", str(scene.config), env=wide)


def test_it_says_how_far_it_has_read_a_large_checkpoint(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_SAY_EVERY_S", 0.0)
    steps: list[str] = []

    publish(Choice(report=scene.report(scene.tier("int4"))), scene.settings, scene.store, lambda _, s: steps.append(s))

    assert any(text.startswith("comparing its digest, MB: 0 of ") for text in steps)
    assert any(text.startswith("inspecting, tensors: 1 of ") and text.endswith(" left") for text in steps)


def test_measured_checkpoints_are_what_the_settings_say_from_then_on(scene: Scene) -> None:
    ladder = published(scene, scene.report(scene.tier("int4"), scene.tier("int8")), "int4", "int8", note="first")

    loaded = load_settings(str(scene.config), environ={})
    tier = loaded.settings.model("m").tier("int4")
    assert (ladder.version, ladder.note) == (1, "first")
    assert tier.checkpoint == "{cache}/int4"
    assert tier.published
    assert tier.published.digest == checkpoint_digest(scene.checkpoints["int4"])
    assert tier.published.measured["perplexity.code"].value == 5.0
    assert tier.published.recovery["top1"].value == 0.9
    assert loaded.sources["models.m.tiers.int4.checkpoint"] == f"{scene.file}, version 1"
    assert scene.served("bf16") == str(scene.old("bf16"))


def test_what_is_published_is_marked_so_that_no_calibration_replaces_it(scene: Scene) -> None:
    folder = scene.checkpoints["int4"]

    published(scene, scene.report(scene.tier("int4")))

    assert (folder / ".published").read_text() == f"release 1 of {scene.file}, m int4\n"
    release = scene.store.present()
    assert release
    assert release.digests("m") == {"int4": checkpoint_digest(folder)}


def test_without_a_choice_all_tiers_that_were_held_against_the_reference_are_published(scene: Scene) -> None:
    ladder = published(scene, scene.report(scene.tier("int4"), scene.tier("int8")))

    assert set(ladder.models["m"].tiers) == {"int4", "int8"}
    assert ladder.models["m"].tiers["int8"].evaluation.versions == {"vllm": "0.32"}


def test_a_later_publication_keeps_the_tiers_that_it_does_not_name(scene: Scene) -> None:
    published(scene, scene.report(scene.tier("int4"), scene.tier("int8")), "int4")

    ladder = published(scene, scene.report(scene.tier("int8")), "int8")

    assert ladder.version == 2
    assert set(ladder.models["m"].tiers) == {"int4", "int8"}


def test_the_reference_is_published_where_it_is_named_and_that_is_said(scene: Scene) -> None:
    report = scene.report(scene.tier("int8"))

    unnamed = run(scene, "publish", str(report), columns=60)
    named = run(scene, "publish", str(report), "--tiers", "int8,bf16", "--json")

    assert "bf16: the reference, not published: it was held against nothing (--tiers bf16 names it)\n" in unnamed.stderr
    assert "…" not in unnamed.stdout  # a narrow table has more lines, and all of what it says
    assert "bf16: the reference, published without a limit" in named.stderr
    assert set(json.loads(named.stdout)["models"]["m"]["tiers"]) == {"int8", "bf16"}
    with pytest.raises(InputError, match=r"none in common beside the reference \(bf16\), .* where --tiers names it"):
        published(scene, scene.report())


def test_the_reference_is_inspected_like_every_other(scene: Scene) -> None:
    tiny = Tiny()
    tiny.array("model.norm.weight")[0] = 0x7FC0
    tiny.write(scene.checkpoints["bf16"])
    report = scene.report()

    with pytest.raises(PublishRefusedError, match=r"bf16: inspect: weights: .* are NaN"):
        published(scene, report, "bf16")
    tiny.write(scene.checkpoints["bf16"], shards=2)
    with pytest.raises(PublishRefusedError, match=r"bf16: .* has changed since it was measured"):
        published(scene, report, "bf16")


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("perplexity.cod", "was not measured; the report has perplexity.code, top1, pass_at_1"),
        ("pass_at_1.x", "was not measured"),
        ("task.capitals", "was not measured"),
        (
            "perplexty",
            "must be of perplexity, top1, answer_top1, answer_prefix, pass_at_1, task, task_same, tokens_per_s",
        ),
        ("kl_mean", "must be of"),
    ],
)
def test_a_limit_that_would_never_apply_is_refused(limit: str, said: str, scene: Scene) -> None:
    limited(scene, {limit: 0.5})

    with pytest.raises(InputError) as refused:
        published(scene, scene.report(scene.tier("int4")))

    assert str(refused.value).startswith(f"publish.min_recovery.{limit}: {said}")


def test_a_limit_may_be_of_what_another_model_is_measured_on(scene: Scene) -> None:
    limited(scene, {"perplexity": 0.9, "task.capitals": 0.9})
    other = scene.settings.models | {"other": scene.settings.model("m")}
    scene.settings = scene.settings.model_copy(update={"models": other})
    choice, said = Choice(report=scene.report(scene.tier("int4"))), []

    publish(choice, scene.settings, scene.store, lambda tier, text: said.append(f"{tier}: {text}"))

    assert "m: publish.min_recovery.task.capitals was not measured and judges nothing here" in said


def test_a_limit_counts_where_its_metric_was_measured(scene: Scene) -> None:
    limited(scene, {"perplexity.code": 0.9, "task": 0.9, "pass_at_1": 0.9})
    unasked = {"perplexity.code": 0.95, "top1": 0.9}

    assert published(scene, scene.report(scene.tier("int4", unasked))).version == 1


def limited(scene: Scene, limits: Mapping[str, float]) -> None:
    its = scene.settings.publish.model_copy(update={"min_recovery": limits})
    scene.settings = scene.settings.model_copy(update={"publish": its})


@pytest.mark.parametrize(
    ("recovery", "kl", "text"),
    [
        (GOOD | {"perplexity.code": 0.85}, 0.1, "perplexity.code keeps 0.850 of the reference"),
        (GOOD | {"perplexity.code": figure(0.88, spread=0.1)}, 0.1, "0.9 is the least"),
        (GOOD | {"top1": 0.7}, 0.1, "top1 keeps 0.700"),
        (GOOD | {"pass_at_1": figure(0.5, spread=0.2)}, 0.1, "pass_at_1 keeps 0.500 of the reference (0.300 to 0.700)"),
        (GOOD, 0.3, "kl_mean is at least 0.3 (a lower bound), at most 0.2"),
        ({"ttft_ms": 1.0}, 0.1, "none of perplexity, top1, pass_at_1, task"),
    ],
)
def test_a_tier_that_lost_too_much_is_refused(
    recovery: dict[str, Estimate | float], kl: float, text: str, scene: Scene
) -> None:
    report = scene.report(scene.tier("int4", recovery, kl), scene.tier("int8"))

    with pytest.raises(PublishRefusedError) as refused:
        published(scene, report)

    assert f"int4: {text}" in str(refused.value) or text in str(refused.value)
    assert "int8" not in str(refused.value)
    assert not scene.file.exists()


def test_few_problems_missed_by_chance_do_not_decide(scene: Scene) -> None:
    unlucky = GOOD | {"pass_at_1": figure(0.75, spread=0.2)}

    assert published(scene, scene.report(scene.tier("int4", unlucky)), "int4").version == 1


def test_a_tier_that_fails_its_inspection_is_refused(scene: Scene) -> None:
    tiny = Tiny("int4")
    tiny.array("model.layers.1.mlp.down_proj.weight_scale")[0] = 0x7FC0
    tiny.write(scene.checkpoints["int4"])

    with pytest.raises(PublishRefusedError, match=r"int4: inspect: scales: .* are NaN"):
        published(scene, scene.report(scene.tier("int4")))

    assert not scene.file.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "config.json"])
def test_a_folder_that_changed_since_it_was_measured_is_refused(name: str, scene: Scene) -> None:
    report = scene.report(scene.tier("int4"))
    (scene.checkpoints["int4"] / name).write_text("{}")

    with pytest.raises(PublishRefusedError, match="has changed since it was measured"):
        published(scene, report)


def test_a_checkpoint_that_is_gone_is_refused(scene: Scene) -> None:
    report = scene.report(scene.tier("int4"))
    (scene.checkpoints["int4"] / "config.json").unlink()

    with pytest.raises(PublishRefusedError, match="there is no checkpoint"):
        published(scene, report)


def test_a_checkpoint_that_cannot_be_read_is_refused(scene: Scene) -> None:
    tier = msgspec.structs.replace(scene.tier("int4"), checkpoint=f"/{'x' * 5000}")

    with pytest.raises(PublishRefusedError, match=r"int4: /x+ cannot be read: .*File name too long"):
        published(scene, scene.report(tier))


def test_a_place_that_takes_no_ladder_is_told_before_anything_else_is_done(scene: Scene) -> None:
    scene.config.write_text(
        scene.config.read_text().replace("[publish]", '[publish]\nfile = "cache/int4/config.json/l"')
    )

    done = run(scene, "publish", str(scene.report(scene.tier("int4"))))

    assert done.returncode == 2
    assert done.stderr.startswith(f"error: publish.file: '{scene.folder}/cache/int4/config.json/l' cannot be written (")
    assert done.stderr.count("\n") == 1


def test_report_and_configuration_must_speak_of_the_same(scene: Scene) -> None:
    with pytest.raises(InputError, match="the report is of model 'other'; the configuration has m"):
        published(scene, scene.report(model="other"))
    with pytest.raises(InputError, match=r"tier 'fp8' must be one of the model \(int4, int8, bf16\)"):
        published(scene, scene.report(), "fp8")
    with pytest.raises(InputError, match=r"tier 'int4' must be .* measured \(bf16\)"):
        published(scene, scene.report(), "int4")


def test_a_rollback_leads_to_the_ladder_before_under_a_new_version(scene: Scene) -> None:
    first = published(scene, scene.report(scene.tier("int4")), "int4")
    scene.checkpoints["int4"] = scene.checkpoint("int4-new", "int4-symmetric")
    published(scene, scene.report(scene.tier("int4", against=scene.against("int4", kl_mean=(0, -0.1, 0.1)))), "int4")
    published(scene, scene.report(scene.tier("int8")), "int8")

    second_again, first_again = back(scene), back(scene)

    assert (second_again.version, second_again.restored, first_again.version, first_again.restored) == (4, 2, 5, 1)
    assert first_again.models == first.models
    assert scene.served("int4") == "{cache}/int4"
    assert back(scene, to=3).content == 3


def test_before_the_first_ladder_there_was_what_the_configuration_says(scene: Scene) -> None:
    first = published(scene, scene.report(scene.tier("int4")), "int4")

    none = back(scene)

    loaded = load_settings(str(scene.config), environ={})
    assert (none.version, none.restored, none.models) == (2, 0, {})
    assert scene.served("int4") == str(scene.old("int4"))
    assert loaded.settings.model("m").tier("int4").published is None
    assert set(loaded.sources.values()) == {str(scene.config)}
    with pytest.raises(
        InputError, match=r"configuration's own tiers are served: nothing to go back from.* releases: 1"
    ):
        back(scene)
    first_again = back(scene, to=1)
    assert (first_again.version, first_again.models) == (3, first.models)


def test_a_publication_after_a_way_back_to_the_configuration_goes_on_counting(scene: Scene) -> None:
    report = scene.report(scene.tier("int4"), scene.tier("int8"))
    published(scene, report, "int4")
    report = scene.report(scene.tier("int4"), scene.tier("int8"))
    published(scene, report, "int4")
    back(scene, to=0)

    fourth = published(scene, report, "int8")

    assert (fourth.version, set(fourth.models["m"].tiers)) == (4, {"int8"})
    assert list(scene.store.former()) == [1, 2, 3]
    assert (back(scene).models, back(scene, to=2).content) == ({}, 2)


@pytest.mark.parametrize("to", [None, 2])
def test_a_way_back_that_would_leave_a_tier_without_a_checkpoint_is_refused(scene: Scene, to: int | None) -> None:
    report = scene.report(scene.tier("int4"), scene.tier("int8"))
    published(scene, report, "int4")
    if to:
        back(scene)
    published(scene, report, "int8")
    (scene.old("int8") / "config.json").unlink()

    with pytest.raises(
        PublishRefusedError, match=r"nothing was changed:\nm int8: the configuration's checkpoint is not in"
    ):
        back(scene, to=to)
    unnamed = scene.config.read_text(encoding="utf-8").replace(str(scene.old("int8")), "")
    scene.config.write_text(unnamed, encoding="utf-8")
    scene.settings = load_settings(str(scene.config), environ={}, with_release=False).settings
    with pytest.raises(PublishRefusedError, match="m int8: the configuration names no checkpoint"):
        back(scene, to=to)

    assert scene.served("int8") == "{cache}/int8"


def test_a_rollback_past_what_is_kept_asks_for_a_version(tmp_path: Path) -> None:
    scene = Scene(tmp_path, keep=1)
    for _ in range(3):
        published(scene, scene.report(scene.tier("int4")), "int4")
    back(scene)

    with pytest.raises(InputError, match="no release before 2 is kept any more; kept are 3, and --to 0 goes back to"):
        back(scene)

    assert back(scene, to=0).models == {}


def test_a_link_is_published_as_the_folder_that_it_leads_to(scene: Scene) -> None:
    link = scene.folder / "latest"
    link.symlink_to(scene.checkpoints["int4"])
    scene.checkpoints["int4"] = link / ".." / "int4"

    published(scene, scene.report(scene.tier("int4")), "int4")

    assert scene.served("int4") == "{cache}/int4"


def test_a_tier_that_the_configuration_has_no_more_is_left_out_and_not_gone_back_to(scene: Scene) -> None:
    published(scene, scene.report(scene.tier("int4"), scene.tier("int8")), "int4", "int8")
    without = scene.config.read_text(encoding="utf-8").replace('name = "int4"', 'name = "int3"')
    scene.config.write_text(without, encoding="utf-8")
    scene.settings = load_settings(str(scene.config), environ={}, with_release=False).settings

    ladder = published(scene, scene.report(scene.tier("int8")), "int8")

    assert set(ladder.models["m"].tiers) == {"int8"}
    assert scene.served("int8") == "{cache}/int8"
    with pytest.raises(InputError, match="release 1 has tiers that the configuration has no more"):
        back(scene)


def test_a_rollback_to_a_checkpoint_that_was_replaced_is_refused(scene: Scene) -> None:
    published(scene, scene.report(scene.tier("int4")), "int4")
    Tiny("int4-symmetric").write(scene.checkpoints["int4"])
    published(scene, scene.report(scene.tier("int4")), "int4", waivers=Waivers(without_incumbent=True))
    before = scene.file.read_bytes()

    with pytest.raises(PublishRefusedError, match=r"m int4: .* has changed since it was measured"):
        back(scene)

    assert scene.file.read_bytes() == before


def test_former_ladders_are_kept_up_to_a_bound(tmp_path: Path) -> None:
    scene = Scene(tmp_path, keep=3)
    for _ in range(6):
        published(scene, scene.report(scene.tier("int4")), "int4")

    assert list(scene.store.former()) == [3, 4, 5]
    assert len(list(scene.store.history.iterdir())) == 3


def test_the_commands_publish_show_and_roll_back(scene: Scene) -> None:
    report = scene.report(scene.tier("int4"))

    first = run(scene, "publish", str(report), "--tiers", "int4", "--json")
    second = run(scene, "publish", str(scene.report(scene.tier("int4"))), "--tiers", "int4", "--note", "again")
    history = json.loads(run(scene, "releases", "--json").stdout)
    gone = run(scene, "rollback", "--to", "9")
    spoiled = scene.report(scene.tier("int4", {"perplexity": 0.1}))
    refused = run(scene, "publish", str(spoiled))
    none = run(scene, "rollback", "--to", "0")

    assert json.loads(first.stdout)["version"] == 1, first.stderr
    assert "2*" in second.stdout
    assert [release["version"] for release in history["releases"]] == [2, 1]
    assert gone.returncode == 2
    assert gone.stderr == "error: there is no former release 9; kept are 1, and 0 is the configuration's own tiers\n"
    assert refused.returncode == 1
    assert "perplexity keeps 0.100" in refused.stderr
    assert "as the configuration has it" in none.stdout


def test_what_a_user_does_not_insist_on_is_an_option(scene: Scene) -> None:
    published(scene, scene.report(scene.tier("int4")))
    scene.checkpoints["int4"] = scene.checkpoint("int4-new", "int4-symmetric")
    report = str(scene.report(scene.tier("int4")))

    refused = run(scene, "publish", report)
    blind = run(scene, "publish", report, "--without-incumbent")
    scene.checkpoints["int4"] = scene.checkpoint("int4-newest", "int8")
    report = str(scene.report(scene.tier("int4", against=scene.against("int4", kl_mean=(0.02, 0.01, 0.03)))))
    worse = run(scene, "publish", report)
    accepted = run(scene, "publish", report, "--accept-worse")

    assert [done.returncode for done in (refused, blind, worse, accepted)] == [1, 0, 1, 0], accepted.stderr
    assert "int4: was not compared with the served checkpoint on the same texts" in refused.stderr
    assert "int4: kl_mean is worse than the served checkpoint's by 0.0200 (0.0100 to 0.0300)" in worse.stderr
    assert scene.served("int4") == "{cache}/int4-newest"


def test_where_nothing_is_published_that_is_said(scene: Scene) -> None:
    done = run(scene, "releases")

    assert done.stderr == f"nothing is published in {scene.file}: what the configuration says is served\n"
    assert json.loads(run(scene, "releases", "--json").stdout)["releases"] == []


def test_the_table_shows_the_least_that_is_kept_of_each_measure_of_quality() -> None:
    names = {"perplexity.code": 0.97, "perplexity.prompts": 0.936, "top1.code": 0.92, "tokens_per_s": 1.4}
    figures = {name: PublishedFigure(value=value, low=value, high=value, n=1) for name, value in names.items()}

    assert kept(figures) == "perplexity 0.936, top1 0.920"
    assert kept({}) == ""


def test_a_note_is_shown_as_it_is_whatever_it_looks_like(scene: Scene) -> None:
    report = str(scene.report(scene.tier("int4")))

    done = run(scene, "publish", report, "--tiers", "int4", "--note", "[/x] markup \x1b[2J")
    later = run(scene, "releases")

    assert (done.returncode, later.returncode) == (0, 0), done.stderr + later.stderr
    for stdout in (done.stdout, later.stdout):
        assert r"[/x] markup \x1b[2J" in stdout
        assert "\x1b" not in stdout


@pytest.mark.parametrize(
    ("note", "said"),
    [
        (b"bad \xff", r"--note: must be UTF-8, got 'bad \udcff'"),
        (b"x" * 501, "--note: must be at most 500 characters, got 501"),
    ],
)
def test_a_note_that_no_ladder_takes_is_refused_in_one_line(note: bytes, said: str, scene: Scene) -> None:
    report = str(scene.report(scene.tier("int4")))

    done = run(scene, "publish", report, "--tiers", "int4", "--note", os.fsdecode(note))

    assert (done.returncode, done.stderr) == (2, f"error: {said}\n")
    assert not scene.file.exists()
