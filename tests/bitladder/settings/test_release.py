"""The published release is checked as strictly as the rest of the settings, and lies between file and environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tomli_w

from bitladder.errors import ConfigError
from bitladder.settings.load import load_settings
from tests.conftest import ROOT

EVALUATION = {"report": "0" * 64, "reference": "bf16", "made_at": "2026-11-24T12:00:00+00:00"}
FIGURE = {"value": 5.0, "low": 4.0, "high": 6.0, "n": 10}
TIER = {
    "checkpoint": "{cache}/smollm2/int4-new",
    "digest": "a" * 64,
    "measured": {"perplexity.code": FIGURE},
    "evaluation": EVALUATION,
}


def ladder(**tier: Any) -> dict[str, Any]:  # noqa: ANN401  (any TOML)
    tiers = {"int4": {**TIER, **tier}}
    return {"version": 3, "published_at": "2026-11-24T12:00:00+00:00", "models": {"smollm2": {"tiers": tiers}}}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "bitladder.toml"
    path.write_text((ROOT / "bitladder.toml").read_text(encoding="utf-8"), encoding="utf-8")
    return path


def load(config: Path, content: dict[str, Any] | None = None, **environ: str) -> Any:  # noqa: ANN401  (short tests)
    if content is not None:
        config.with_name("ladder.toml").write_text(tomli_w.dumps(content), encoding="utf-8")
    return load_settings(str(config), environ=environ)


def test_a_ladder_has_models_by_the_names_that_people_have(tmp_path: Path) -> None:
    config, name = tmp_path / "bitladder.toml", "HuggingFaceTB/SmolLM2-360M-Instruct:v1"
    config.write_text(f'[models."{name}"]\n[[models."{name}".tiers]]\nname = "int4"\n', encoding="utf-8")
    content = ladder()
    content["models"] = {name: content["models"]["smollm2"]}

    loaded = load(config, content)

    assert loaded.settings.model(name).tier("int4").published.version == 3
    assert loaded.sources[f"models.{name}.tiers.int4.checkpoint"].endswith("ladder.toml, version 3")


def test_without_a_ladder_the_configuration_counts(config: Path) -> None:
    tier = load(config).settings.model("smollm2").tier("int4")

    assert (tier.checkpoint, tier.published) == ("{cache}/smollm2/int4", None)


def test_a_ladder_lies_over_the_configuration_and_is_named_as_the_source(config: Path) -> None:
    loaded = load(config, ladder())

    model = loaded.settings.model("smollm2")
    assert model.tier("int4").checkpoint == "{cache}/smollm2/int4-new"
    assert model.tier("int4").published.version == 3
    assert model.tier("int4").slots == 16
    assert model.tier("int8").checkpoint == "{cache}/smollm2/int8"
    assert loaded.sources["models.smollm2.tiers.int4.checkpoint"].endswith("ladder.toml, version 3")
    assert loaded.sources["models.smollm2.tiers.int8.checkpoint"] == str(config)


def test_the_environment_lies_over_the_ladder_and_takes_its_figures_away(config: Path) -> None:
    loaded = load(config, ladder(), BITLADDER_MODELS__SMOLLM2__TIERS__INT4__CHECKPOINT="/mine")

    tier = loaded.settings.model("smollm2").tier("int4")
    assert (tier.checkpoint, tier.published) == ("/mine", None)


def test_the_ladder_s_name_is_a_setting_and_may_be_none(config: Path) -> None:
    named = ladder(checkpoint="/named")
    config.with_name("other.toml").write_text(tomli_w.dumps(named), encoding="utf-8")

    other = load(config, ladder(), BITLADDER_PUBLISH__FILE="other.toml").settings
    none = load(config, BITLADDER_PUBLISH__FILE="").settings

    assert other.model("smollm2").tier("int4").checkpoint == "/named"
    assert none.model("smollm2").tier("int4").published is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (ladder(checkpoint="{cache}/../../etc"), "must not leave its folder by '..'"),
        (ladder(checkpoint="smollm2/int4"), "must be an absolute path, or begin with {cache}/"),
        (ladder(digest="abc"), "models.smollm2.tiers.int4.digest: must be 64 hexadecimal digits, got 'abc'"),
        (ladder(measured={"top1": FIGURE | {"value": float("nan")}}), "finite number"),
        (
            ladder(measured={"top1": FIGURE | {"value": 7.0}}),
            "value must lie between low and high (4.0 and 6.0), got",
        ),
        (ladder(recovery={"top1": FIGURE | {"high": 4.5}}), "value must lie between low and high"),
        (ladder() | {"checksum": "0" * 64}, "was changed after it was published (its checksum does not fit)"),
        (ladder() | {"checksum": "abc"}, "checksum"),
        (ladder(slots=3), "models.smollm2.tiers.int4.slots"),
        (ladder() | {"version": 0}, "version: Input should be greater than or equal to 1"),
        (ladder() | {"restored": 3}, "restored must be below version"),
        (ladder() | {"models": {}}, "models must name a model, unless restored is 0"),
        (ladder() | {"restored": 0}, "models must name a model, unless restored is 0"),
        (
            ladder() | {"models": {"gpt": ladder()["models"]["smollm2"]}},
            "models.gpt: there is no such model; there is sm",
        ),
        (
            ladder() | {"models": {"smollm2": {"tiers": {"int2": TIER}}}},
            "models.smollm2.tiers.int2: there is no such tier in int4, int8, fp8",
        ),
    ],
)
def test_a_wrong_ladder_is_refused_with_file_key_and_reason(content: dict[str, Any], said: str, config: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        load(config, content)

    assert said in str(refused.value)
    assert str(config.with_name("ladder.toml")) in str(refused.value)


def test_a_ladder_may_say_that_the_configuration_counts(config: Path) -> None:
    loaded = load(config, ladder() | {"restored": 0, "models": {}})

    assert loaded.settings == load_settings(str(config), environ={}, with_release=False).settings
    assert set(loaded.sources.values()) == {str(config)}


@pytest.mark.parametrize(
    "content", [b"version = [", b"v = " + b"[" * 5000, b"\xff\xfe", b"version = 1\n" * 2, b"#" * 1_000_001]
)
def test_a_file_that_is_no_ladder_at_all_is_refused_by_name(content: bytes, config: Path) -> None:
    config.with_name("ladder.toml").write_bytes(content)

    with pytest.raises(ConfigError, match=r"release '.*ladder\.toml'"):
        load(config)
