"""bitladder/settings/live_values.py: what may be changed while all processes run, and how it stands over the files."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bitladder.errors import ConfigError, QueueUnreachableError
from bitladder.policy_forms import LearnedForm
from bitladder.settings.access import key_hash
from bitladder.settings.live import LiveSettings, ReleaseWatch, take_changes
from bitladder.settings.live_values import NO_LIVE, Change, LiveDocument, LiveValue, changed, not_ended, with_live
from bitladder.settings.load import Loaded, load_settings
from tests.conftest import ROOT

INT4 = "models.smollm2.tiers.int4"


def load(environ: dict[str, str] | None = None, **auth: Any) -> Loaded:  # noqa: ANN401  (any setting)
    keys = {"auth.keys": {"acme": {"hash": key_hash(b"k"), "tenant": "acme", **auth}}} if auth else {}
    return load_settings(str(ROOT / "bitladder.toml"), environ=environ or {}, flags={"publish.file": "", **keys})


def document(**values: Any) -> LiveDocument:  # noqa: ANN401
    entries = {
        key.replace("__", "."): LiveValue(value=value, author="ann", at=1.0, revision=3)
        for key, value in values.items()
    }
    return LiveDocument(revision=3, values=entries)


def change(loaded: Loaded, before: LiveDocument = NO_LIVE, **values: Any) -> tuple[LiveDocument, Loaded]:  # noqa: ANN401
    dotted = {key.replace("__", "."): value for key, value in values.items()}
    return changed(loaded, before, Change(values=dotted, author="ann", at=1.0))


def test_live_settings_stand_over_the_file_and_over_variables() -> None:
    files = load({"BITLADDER_MODELS__SMOLLM2__TIERS__INT4__HIGH": "48"})

    live = with_live(files, document(models__smollm2__tiers__int4__high=40, policy__name="fixed:fp8"))

    assert (live.settings.model("smollm2").tier("int4").high, live.settings.policy.name) == (40, "fixed:fp8")
    assert live.sources[f"{INT4}.high"] == "live settings, revision 3, by ann"
    ends = with_live(files, for_a_while(NO_LIVE, 10, policy__name="fixed:fp8"))
    assert ends.sources["policy.name"] == "live settings, revision 1, by bob, until 1970-01-01 00:00:10"
    assert files.settings.model("smollm2").tier("int4").high == 48


def test_the_limit_of_a_learned_policy_is_changed_live_and_its_file_stays() -> None:
    table = {"kind": "learned", "file": str(ROOT / "examples" / "learned_policy.json")}
    flags = {"publish.file": "", "policies": {"loss": table}, "policy.name": "loss"}
    files = load_settings(str(ROOT / "bitladder.toml"), environ={}, flags=flags)

    _, live = change(files, policies__loss__limit=0.01)

    before, after = (loaded.settings.policies["loss"].content for loaded in (files, live))
    assert isinstance(before, LearnedForm)
    assert after == msgspec.structs.replace(before, limit=0.01)
    with pytest.raises(ConfigError, match=r"policies\.loss\.limit"):
        change(files, policies__loss__limit=-1)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"models__smollm2__tiers__int4__low": 70}, rf"{INT4}\.low must be below high \(64\), got 70.*by ann"),
        ({"policy__entropy_bits": "much"}, r"policy\.entropy_bits: Input should be a valid number.*got 'much'"),
        (
            {"models__smollm2__tiers__int4__slots": True},
            rf"{INT4}\.slots must be a number, not true .from live.*by ann",
        ),
        ({"policy__name": "fixed:int2"}, r"policy\.name fixed:int2: model smollm2 has tiers .*, not 'int2'"),
        ({"models__smollm2__tiers__int9__low": 1}, r"int9\.low is not a setting .*did you mean .*low\?"),
        ({"policies__mine__file": "/etc/passwd"}, r"policies\.mine\.file is not a setting that may be changed while"),
        ({"models__smollm2__tiers__int4__checkpoint": "/x"}, r"checkpoint is not a setting that may be changed while"),
        ({"redis__url": "redis://elsewhere"}, r"redis\.url is not a setting that may be changed while"),
    ],
)
def test_a_wrong_change_is_refused_with_key_value_and_what_is_expected(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        change(load(), **values)


def test_a_document_that_names_a_file_is_never_taken() -> None:
    with pytest.raises(ConfigError, match=r"policies\.mine\.file may not be changed while the system runs"):
        with_live(load(), document(policies__mine__kind="threshold", policies__mine__file="rules.toml"))


def test_a_new_policy_is_made_and_chosen_in_one_change() -> None:
    _, live = change(
        load(),
        policies__canary__kind="split",
        policies__canary__shares={"article": 0.9, "fixed:fp8": 0.1},
        policy__name="canary",
    )

    assert live.settings.policies["canary"].shares == {"article": 0.9, "fixed:fp8": 0.1}
    assert live.settings.policy.name == "canary"


def test_a_key_that_was_revoked_or_is_unknown_here_stops_no_other_setting() -> None:
    live, _ = change(load(weight=2), auth__keys__acme__weight=5, policy__name="fixed:fp8")

    assert with_live(load(weight=2), live).settings.auth.keys["acme"].weight == 5
    assert with_live(load(), live).settings.policy.name == "fixed:fp8"


def test_what_is_unset_is_as_the_files_have_it() -> None:
    before, _ = change(load(), policy__name="fixed:fp8", policy__entropy_bits=2.0)

    after, live = changed(load(), before, Change(values={}, unset=("policy.name",), author="ann", at=2.0))

    assert (live.settings.policy.name, live.settings.policy.entropy_bits, after.revision) == ("article", 2.0, 2)
    with pytest.raises(ConfigError, match=r"policy\.name is not set live.*set are: policy\.entropy_bits"):
        changed(load(), after, Change(values={}, unset=("policy.name",), author="ann", at=3.0))


class Process:
    """What a process has of its settings."""

    def __init__(self, config: Path) -> None:
        self.watch = ReleaseWatch(lambda: load_settings(str(config), environ={}))
        self.live = LiveSettings(self.watch.settings)
        self.heard: LiveDocument | Exception = NO_LIVE

    async def look(self) -> tuple[int, str, int]:
        await take_changes(self.watch, self.live, self._read)
        settings = self.live.current
        return settings.model("smollm2").tier("int4").high, settings.policy.name, self.watch.live.revision

    async def _read(self) -> LiveDocument:
        if isinstance(self.heard, Exception):
            raise self.heard
        return self.heard


@pytest.fixture
def process(tmp_path: Path) -> Process:
    config = tmp_path / "bitladder.toml"
    config.write_text((ROOT / "bitladder.toml").read_text(encoding="utf-8"), encoding="utf-8")
    return Process(config)


def edit(process: Process, old: str, new: str) -> None:
    config = process.watch.files.config_file
    config.write_text(config.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


async def test_a_process_that_cannot_take_the_document_keeps_its_last_one_names_it_once_and_still_takes_files(
    process: Process,
) -> None:
    process.heard = document(policy__name="fixed:fp8")
    assert await process.look() == (64, "fixed:fp8", 3)

    process.heard = LiveDocument(revision=4, values=document(policy__name="fixed:int1").values)
    edit(process, "high = 64", "high = 48")

    assert [await process.look(), await process.look()] == [(48, "fixed:fp8", 3)] * 2
    assert (process.watch.refused, "fixed:int1" in process.watch.problem) == (1, True)

    process.heard = ConfigError("the live settings in Redis (bl:settings) are refused")
    assert await process.look() == (48, "fixed:fp8", 3)

    process.heard = LiveDocument(revision=5)
    assert await process.look() == (48, "article", 5)
    assert process.watch.problem == ""


async def test_while_redis_is_unreachable_the_last_live_settings_stay(process: Process) -> None:
    process.heard = document(policy__name="fixed:fp8")
    await process.look()

    process.heard = QueueUnreachableError("no answer")

    assert await process.look() == (64, "fixed:fp8", 3)
    assert process.watch.problem == ""


async def test_a_process_starts_with_its_files_where_the_live_settings_do_not_fit_them(process: Process) -> None:
    process.heard = document(models__smollm2__tiers__int4__low=64)

    assert await process.look() == (64, "article", 0)
    assert "low must be below high (64), got 64" in process.watch.problem


async def test_a_file_that_does_not_fit_the_live_settings_in_force_is_refused(process: Process) -> None:
    process.heard = document(models__smollm2__tiers__int4__low=40)
    await process.look()

    edit(process, "high = 64", "high = 32")

    assert await process.look() == (64, "article", 3)
    assert "low must be below high (32), got 40" in process.watch.problem


def test_a_value_that_ends_gives_way_to_what_was_set_before_also_where_it_was_prolonged() -> None:
    files = load()

    def order(before: LiveDocument, value: str, at: float, until: float | None) -> LiveDocument:
        asked = Change(values={"policy.name": value}, author="ann", at=at, until=until)
        return changed(files, before, asked)[0]

    first = order(order(NO_LIVE, "fixed:int8", 1, None), "fixed:fp8", 2, 10)
    longer = order(not_ended(first, 9), "fixed:fp8", 9, 20)

    assert not_ended(longer, 19.9) is longer
    ended = msgspec.json.decode(msgspec.json.encode(not_ended(longer, 20)), type=LiveDocument)
    assert (ended.revision, with_live(files, ended).settings.policy.name) == (3, "fixed:int8")
    assert not_ended(order(NO_LIVE, "fixed:fp8", 1, 10), 10).values == {}
    assert not_ended(order(longer, "fixed:int4", 9, None), 99).values["policy.name"].value == "fixed:int4"


def for_a_while(before: LiveDocument, until: float, **values: Any) -> LiveDocument:  # noqa: ANN401
    dotted = {key.replace("__", "."): value for key, value in values.items()}
    return changed(load(), before, Change(values=dotted, author="bob", at=2, until=until))[0]


def test_a_shorter_change_over_a_longer_one_gives_way_to_it_and_the_same_value_gets_a_new_end() -> None:
    longer = for_a_while(NO_LIVE, 100, policy__name="fixed:int8")
    shorter = for_a_while(for_a_while(longer, 10, policy__name="fixed:fp8"), 20, policy__name="fixed:int4")
    cut = for_a_while(longer, 10, policy__name="fixed:int8")

    values = [not_ended(shorter, now).values for now in (19, 20, 99, 100)]
    assert [value["policy.name"].value for value in values[:3]] == ["fixed:int4", "fixed:int8", "fixed:int8"]
    assert (values[3], not_ended(cut, 10).values) == ({}, {})


def test_a_change_is_refused_where_it_would_be_wrong_once_another_has_ended() -> None:
    high = for_a_while(NO_LIVE, 10, models__smollm2__tiers__int4__high=200)

    with pytest.raises(
        ConfigError,
        match=r"once what is set until 1970-01-01 00:00:10 has ended: .*low must be below high \(64\), got 100",
    ):
        change(load(), high, models__smollm2__tiers__int4__low=100)

    both = for_a_while(high, 10, models__smollm2__tiers__int4__low=100)
    assert not_ended(both, 10).values == {}


@pytest.mark.parametrize(
    "redis", [QueueUnreachableError("no answer"), ConfigError("they cannot be read")], ids=["unreachable", "damaged"]
)
async def test_a_change_ends_also_where_a_process_cannot_read_the_settings_any_more(
    process: Process, redis: Exception
) -> None:
    process.heard = for_a_while(NO_LIVE, time.time() + 0.2, policy__name="fixed:fp8")
    assert await process.look() == (64, "fixed:fp8", 1)

    process.heard = redis
    await asyncio.sleep(0.2)

    assert await process.look() == (64, "article", 1)
