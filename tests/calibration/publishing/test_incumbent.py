"""What is served is replaced only by what is not worse, on the same texts, and measured over enough."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitladder.settings.load import load_settings
from bitladder.settings.publish_section import PublishSettings, TierLimits
from bitladder.settings.release import Release
from calibration.artifacts.evaluation_report import Incumbent
from calibration.errors import InputError, PublishRefusedError
from calibration.publishing.incumbent import Waivers
from calibration.publishing.publish_tiers import Choice, publish
from tests.calibration.publishing.scene import GOOD, Scene, figure


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Return a scene in which int8 is published, and another checkpoint of it was made."""
    scene = Scene(tmp_path)
    published(scene, scene.report(scene.tier("int8")))
    scene.checkpoints["int8"] = scene.checkpoint("int8-new", "int4-symmetric")
    return scene


def published(
    scene: Scene, report: Path, waivers: Waivers | None = None, into: list[str] | None = None, **limits: object
) -> Release:
    changed = scene.settings.publish.model_copy(update=limits)
    settings = scene.settings.model_copy(update={"publish": changed})
    choice = Choice(report=report, waivers=waivers or Waivers())
    into = [] if into is None else into
    return publish(choice, settings, scene.store, lambda tier, text: into.append(f"{tier}: {text}"))


def test_what_was_not_compared_with_the_served_checkpoint_is_refused_unless_the_user_says_so(scene: Scene) -> None:
    report, steps = scene.report(scene.tier("int8")), list[str]()

    with pytest.raises(PublishRefusedError, match=r"int8: was not compared with the served checkpoint on the same"):
        published(scene, report)
    release = published(scene, report, Waivers(without_incumbent=True), steps)

    assert release.version == 2
    assert any("replaced all the same (--without-incumbent)" in text for text in steps)


def test_a_comparison_with_what_was_served_before_does_not_count(scene: Scene) -> None:
    against = scene.against("int8", kl_mean=(0, -0.1, 0.1))
    outdated = Incumbent(tier=against.tier, digest="0" * 64, compared=against.compared)

    with pytest.raises(PublishRefusedError, match="was not compared with the served checkpoint"):
        published(scene, scene.report(scene.tier("int8", against=outdated)))


@pytest.mark.parametrize(
    ("metric", "difference", "expected"),
    [
        ("kl_mean", (0.02, 0.01, 0.03), r"kl_mean is worse than the served checkpoint's by 0.0200 \(0.0100 to 0.0300"),
        ("perplexity__code", (0.5, 0.1, 0.9), "perplexity.code is worse than the served checkpoint's by 0.5"),
        ("pass_at_1", (-0.2, -0.3, -0.1), "pass_at_1 is worse than the served checkpoint's by 20.0 %"),
        ("top1", (-0.02, -0.03, -0.01), "top1 is worse than the served checkpoint's by 2.0 %"),
    ],
)
def test_what_is_worse_than_the_served_checkpoint_beyond_the_interval_is_refused(
    metric: str, difference: tuple[float, float, float], expected: str, scene: Scene
) -> None:
    report = scene.report(scene.tier("int8", against=scene.against("int8", **{metric: difference})))

    with pytest.raises(PublishRefusedError, match=rf"int8: {expected}"):
        published(scene, report)
    assert published(scene, report, Waivers(accept_worse=True)).version == 2


@pytest.mark.parametrize("difference", [(0.02, -0.01, 0.05), (-0.5, -0.6, -0.4)])
def test_what_may_be_as_good_or_is_better_replaces_what_is_served(
    difference: tuple[float, float, float], scene: Scene
) -> None:
    against, steps = scene.against("int8", kl_mean=difference), list[str]()

    assert published(scene, scene.report(scene.tier("int8", against=against)), into=steps).version == 2
    assert "int8: not worse than the served checkpoint beyond the intervals" in steps


def test_of_many_figures_one_beyond_its_interval_is_chance_and_a_clear_one_is_not(scene: Scene) -> None:
    """An equal checkpoint has one of forty figures beyond its interval in two of three evaluations."""
    equal = {f"kl_mean__kind{number}": (0.0, -0.01, 0.01) for number in range(39)}
    clear = scene.report(scene.tier("int8", against=scene.against("int8", **equal, top1=(-0.03, -0.04, -0.02))))
    clear = clear.rename(clear.with_name("clear.json"))
    by_chance = scene.report(scene.tier("int8", against=scene.against("int8", **equal, top1=(-0.011, -0.021, -0.001))))

    with pytest.raises(PublishRefusedError, match="top1 is worse than the served checkpoint's by"):
        published(scene, clear)
    assert published(scene, by_chance).version == 2


def test_publishing_the_same_report_again_changes_nothing(tmp_path: Path) -> None:
    scene, steps = Scene(tmp_path), list[str]()
    report = scene.report(scene.tier("int8"))
    published(scene, report)
    before = scene.file.read_bytes()

    again = published(scene, report, into=steps)

    assert (again.version, scene.file.read_bytes(), list(scene.store.former())) == (1, before, [])
    assert "m: release 1 says this already: nothing changed" in steps


def test_figures_of_one_token_or_one_answer_prove_nothing(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    kept = {"perplexity.code": figure(1.0, n=1), "top1": figure(1.0, n=1), "pass_at_1": figure(1.0, n=1)}
    report = scene.report(scene.tier("int4", kept))

    with pytest.raises(PublishRefusedError) as refused:
        published(scene, report)

    assert "int4: perplexity.code judges nothing: 1 tokens of at least 500 (publish.min_tokens)" in str(refused.value)
    assert "int4: pass_at_1 judges nothing: 1 answers of at least 20 (publish.min_answers)" in str(refused.value)
    assert published(scene, report, min_tokens=1).version == 1


def test_a_figure_over_too_few_is_named_where_others_are_proof(tmp_path: Path) -> None:
    scene, steps = Scene(tmp_path), list[str]()
    report = scene.report(scene.tier("int4", GOOD | {"perplexity.code": figure(0.1, n=40)}))

    assert published(scene, report, into=steps).version == 1
    assert "int4: perplexity.code judges nothing: 40 tokens of at least 500 (publish.min_tokens)" in steps


def test_a_speed_of_other_hardware_than_the_tier_s_meets_no_limit(tmp_path: Path) -> None:
    scene, steps = Scene(tmp_path), list[str]()
    scene.config.write_text(scene.config.read_text().replace('name = "int4"', 'name = "int4"\nhardware = "L4"'))
    scene.settings = load_settings(str(scene.config), environ={}, with_release=False).settings
    report = scene.report(scene.tier("int4", GOOD | {"tokens_per_s": 2.0}))
    limit = scene.settings.publish.min_recovery | {"tokens_per_s": 1.0}

    with pytest.raises(PublishRefusedError, match=r"int4: tokens_per_s .* proves nothing: measured on any, the tier's"):
        published(scene, report, min_recovery=limit)
    assert published(scene, report, into=steps).version == 1
    assert "int4: its speed is not that of the tier: measured on any, the tier's hardware is L4" in steps


def test_a_tier_may_have_limits_of_its_own(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    report = scene.report(scene.tier("int4", kl=0.1), scene.tier("int8", kl=0.1))
    strict = {"int8": TierLimits(max_kl=0.02, min_recovery={"top1": 0.95})}

    with pytest.raises(PublishRefusedError) as refused:
        published(scene, report, tiers=strict)

    assert "int8: kl_mean is at least 0.1 (a lower bound), at most 0.02 is allowed" in str(refused.value)
    assert "int8: top1 keeps 0.900 of the reference" in str(refused.value)
    assert "int4" not in str(refused.value)
    assert PublishSettings(tiers=strict).limits_of("int8").min_recovery["perplexity"] == 0.9


def test_limits_of_a_tier_that_no_model_has_are_refused(tmp_path: Path) -> None:
    scene = Scene(tmp_path)

    with pytest.raises(InputError, match=r"publish.tiers.int2: there is no such tier; there is int4, int8, bf16"):
        published(scene, scene.report(scene.tier("int4")), tiers={"int2": TierLimits()})
    with pytest.raises(InputError, match=r"publish.tiers.int4.min_recovery.perplexty: must be of perplexity"):
        published(scene, scene.report(scene.tier("int4")), tiers={"int4": TierLimits(min_recovery={"perplexty": 1})})
