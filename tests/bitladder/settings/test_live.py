"""bitladder/settings/live.py: what may change is taken from every file, what is wrong is refused, the rest waits."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tomli_w

from bitladder.settings.live import ReleaseWatch, release_version
from bitladder.settings.load import load_settings
from tests.bitladder.settings.test_release import ladder
from tests.conftest import ROOT


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "bitladder.toml"
    path.write_text((ROOT / "bitladder.toml").read_text(encoding="utf-8"), encoding="utf-8")
    return path


@pytest.fixture
def watch(config: Path) -> ReleaseWatch:
    return ReleaseWatch(lambda: load_settings(str(config), environ={}))


def publish(config: Path, version: int, checkpoint: str = "/new") -> None:
    beside = config.with_name("beside")
    beside.write_text(tomli_w.dumps(ladder(checkpoint=checkpoint) | {"version": version}), encoding="utf-8")
    beside.rename(config.with_name("ladder.toml"))


def checkpoint(watch: ReleaseWatch) -> str:
    return watch.settings.model("smollm2").tier("int4").checkpoint


def test_a_published_ladder_is_noticed_once(watch: ReleaseWatch, config: Path) -> None:
    assert not watch.look()

    publish(config, 1)

    assert [watch.look(), watch.look()] == [True, False]
    assert (checkpoint(watch), release_version(watch.settings)) == ("/new", 1)


def test_what_is_published_while_the_settings_are_read_is_not_missed(config: Path) -> None:
    def load_slowly() -> object:
        loaded = load_settings(str(config), environ={})
        publish(config, 1)
        return loaded

    watch = ReleaseWatch(load_slowly)  # type: ignore[arg-type]  # (Loaded, published over in between)

    assert watch.look()
    assert checkpoint(watch) == "/new"


def test_without_its_file_the_configuration_counts_again(watch: ReleaseWatch, config: Path) -> None:
    publish(config, 1)
    watch.look()

    config.with_name("ladder.toml").unlink()

    assert watch.look()
    assert (checkpoint(watch), release_version(watch.settings)) == ("{cache}/smollm2/int4", 0)


def test_a_ladder_that_says_that_the_configuration_counts_is_taken_like_another(
    watch: ReleaseWatch, config: Path
) -> None:
    publish(config, 1)
    watch.look()
    none = ladder() | {"version": 2, "restored": 0, "models": {}}

    config.with_name("ladder.toml").write_text(tomli_w.dumps(none), encoding="utf-8")

    assert watch.look()
    assert (checkpoint(watch), release_version(watch.settings)) == ("{cache}/smollm2/int4", 0)


@pytest.mark.parametrize("content", ["version = ", "version = 2", ""])
def test_a_bad_ladder_is_refused_once_and_the_old_one_stays(watch: ReleaseWatch, config: Path, content: str) -> None:
    publish(config, 1)
    watch.look()

    config.with_name("ladder.toml").write_text(content, encoding="utf-8")

    assert [watch.look(), watch.look()] == [False, False]
    assert (checkpoint(watch), watch.refused) == ("/new", 1)


def test_what_a_process_is_built_around_waits_for_a_restart_and_the_rest_is_taken(
    watch: ReleaseWatch, config: Path
) -> None:
    text = config.read_text(encoding="utf-8")
    changed = text.replace("slots = 16", 'slots = 3\nurl = "http://other"').replace("2048", "512")
    config.write_text(changed, encoding="utf-8")
    publish(config, 1)

    assert watch.look()
    model = watch.settings.model("smollm2")
    tier = model.tier("int4")
    assert (tier.url, tier.slots, model.max_model_len, checkpoint(watch)) == ("", 3, 512, "/new")


def edit(config: Path, old: str, new: str) -> None:
    config.write_text(config.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


def test_policies_marks_prices_and_lanes_of_the_configuration_are_taken(watch: ReleaseWatch, config: Path) -> None:
    edit(config, "high = 64", "high = 32")
    edit(config, "price_per_hour = 0.70", "price_per_hour = 0.10")
    edit(config, "[vllm]", '[policy]\nname = "mine"\n[lanes]\noverflow = ["urgent"]\n[vllm]')
    edit(config, "[models.smollm2]", f'{TABLE}otherwise = "int8"\n[models.smollm2]\npolicy = "fixed:int4"')

    assert [watch.look(), watch.look()] == [True, False]
    settings, model = watch.settings, watch.settings.model("smollm2")
    assert (model.tier("int4").high, model.tier("int4").price_per_hour, settings.lanes.overflow) == (
        32,
        0.1,
        ("urgent",),
    )
    assert (settings.policy.name, model.policy, settings.policies["mine"].content.version) == ("mine", "fixed:int4", 1)


TABLE = '[policies.mine]\nkind = "threshold"\nrules = [{when = ["tokens > 9"], floor = "fp8"}]\n'
FORM = 'kind = "threshold"\nversion = {}\nrules = [{{when = ["tokens > 9"], floor = "fp8"}}]\notherwise = "int4"\n'


def version(watch: ReleaseWatch) -> int:
    return int(watch.settings.policies["mine"].content.version)


def test_a_policy_s_file_is_taken_when_it_changes(watch: ReleaseWatch, config: Path) -> None:
    file = config.with_name("rules.toml")
    file.write_text(FORM.format(1), encoding="utf-8")
    edit(config, "[vllm]", '[policy]\nname = "mine"\n[policies.mine]\nkind = "threshold"\nfile = "rules.toml"\n[vllm]')
    assert (watch.look(), version(watch)) == (True, 1)

    file.write_text(FORM.format(22), encoding="utf-8")

    assert [watch.look(), watch.look()] == [True, False]
    assert version(watch) == 22


@pytest.mark.parametrize(
    "content", [None, "kind =", FORM.format(3).replace("tokens", "iq"), FORM.format(3).replace("fp8", "fp9")]
)
def test_a_wrong_policy_file_is_refused_by_name_until_it_is_mended(
    watch: ReleaseWatch, config: Path, content: str | None
) -> None:
    file, before = config.with_name("rules.toml"), watch.settings
    if content is not None:
        file.write_text(content, encoding="utf-8")
    edit(config, "[vllm]", '[policy]\nname = "mine"\n[policies.mine]\nkind = "threshold"\nfile = "rules.toml"\n[vllm]')

    assert [watch.look(), watch.look()] == [False, False]
    assert (watch.settings, watch.refused) == (before, 1)
    assert "mine" in watch.problem

    file.write_text(FORM.format(4), encoding="utf-8")  # no file that was named by a good configuration has changed

    assert watch.look()
    watch.taken()
    assert (version(watch), watch.refused, watch.problem) == (4, 1, "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            '[policies.p]\nkind = "threshold"\nfile = "~nobody-of-this-name/rules.toml"\n',
            r"policies\.p\.file: cannot read",
        ),
        ('[policies.p]\nkind = "threshold"\nfile = "a\\u0000b"\n', r"policies\.p\.file: cannot read"),
        (f"[policies.p]\nrules = {'[' * 2000}{']' * 2000}\n", "cannot read configuration file"),
    ],
)
def test_whatever_a_changed_configuration_says_it_is_refused_and_does_not_end_the_watch(
    watch: ReleaseWatch, config: Path, text: str, words: str
) -> None:
    before = watch.settings
    edit(config, "[vllm]", f"{text}[vllm]")

    assert [watch.look(), watch.look()] == [False, False]
    assert (watch.settings, watch.refused) == (before, 1)
    assert re.search(words, watch.problem)


def test_a_disk_that_is_unreachable_says_nothing(watch: ReleaseWatch, config: Path) -> None:
    publish(config, 1)
    watch.look()
    hidden = config.parent.with_name("hidden")

    config.parent.rename(hidden)
    config.parent.write_text("no folder")  # the file's stat fails with ENOTDIR, as a lost mount does with EIO

    assert not watch.look()
    assert (checkpoint(watch), watch.refused) == ("/new", 0)
