"""Names of models: what may be one, aliases, and how the environment spells them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitladder.errors import ConfigError, ModelNotFoundError
from bitladder.settings.load import Loaded, load_settings
from bitladder.settings.models_section import ModelChoice

HUB, LLAMA = "HuggingFaceTB/SmolLM2-360M-Instruct", "llama3.1:8b"


def load(folder: Path, *models: str, environ: dict[str, str] | None = None) -> Loaded:
    """Load a configuration with these models, each its name and, behind a line end, other settings."""
    file = folder / "bitladder.toml"
    tables = [_table(*model.partition("\n")) for model in models]
    file.write_text("[publish]\nfile = ''\n" + "".join(tables), encoding="utf-8")
    return load_settings(str(file), environ=environ or {})


def _table(name: str, _: str, settings: str) -> str:
    tiers = "".join(f'[[models."{name}".tiers]]\nname = "{tier}"\n' for tier in ("int4-g128", "int8"))
    return f'[models."{name}"]\n{settings}\n{tiers}'


@pytest.mark.parametrize(
    "name",
    [HUB, LLAMA, "smollm2", "hf.co/bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M", "@cf/meta/llama-3-8b", "a" * 128],
)
def test_a_model_is_called_what_people_call_it(tmp_path: Path, name: str) -> None:
    settings = load(tmp_path, name).settings

    assert settings.choice(name) == ModelChoice(name)
    assert settings.choice(f"{name}:int8") == settings.choice(f"{name}@int8") == ModelChoice(name, "int8")


@pytest.mark.parametrize(
    "name", ["", "a b", "/a", "a/", "a//b", "a:", "a/../b", "../a", "a%2Fb", "a*", "a,b", "ä", "a" * 129, "a\\n"]
)
def test_what_would_break_keys_lists_or_paths_is_no_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"must be 1 to 128 of A-Z"):
        load(tmp_path, name)


def test_aliases_mean_their_model_and_its_tiers(tmp_path: Path) -> None:
    settings = load(tmp_path, HUB + "\naliases = ['smol', 'gpt-4o-mini']", LLAMA).settings

    assert [settings.choice(name) for name in ("smol", "gpt-4o-mini:int8", f"{LLAMA}@int4-g128")] == [
        ModelChoice(HUB),
        ModelChoice(HUB, "int8"),
        ModelChoice(LLAMA, "int4-g128"),
    ]


@pytest.mark.parametrize(
    ("name", "what_there_is"),
    [
        ("gpt-x", f"{HUB}, {LLAMA}"),
        ("smol:fp8", "smol:int4-g128, smol:int8"),
        ("llama3.1", f"{HUB}, {LLAMA}"),
        ("smol:int8:x", f"{HUB}, {LLAMA}"),
        ("smolx", f"{HUB}, {LLAMA}"),
    ],
)
def test_an_unknown_name_is_told_what_there_is(tmp_path: Path, name: str, what_there_is: str) -> None:
    settings = load(tmp_path, HUB + "\naliases = ['smol']", LLAMA).settings

    with pytest.raises(ModelNotFoundError) as caught:
        settings.choice(name)

    assert str(caught.value) == (
        f"The model `{name}` does not exist or you do not have access to it. There is {what_there_is}."
    )


@pytest.mark.parametrize(
    ("models", "why"),
    [
        ([HUB + "\naliases = ['smol']", LLAMA + "\naliases = ['smol']"], "'smol' means model"),
        ([HUB + f"\naliases = ['{LLAMA}']", LLAMA], f"'{LLAMA}' means model {HUB} and model {LLAMA}"),
        ([HUB + "\naliases = ['a', 'a']"], "'a' means model"),
        ([HUB + f"\naliases = ['{HUB}']"], "means model"),
        (["a", "a:int8"], "'a:int8' means tier int8 of model a and model a:int8"),
        (["a", "b\naliases = ['a@int8']"], "'a@int8' means tier int8 of model a and model b"),
        ([HUB + "\naliases = ['a b']"], r"must be 1 to 128 of A-Z"),
    ],
)
def test_a_name_that_means_two_things_is_refused_at_the_start(tmp_path: Path, models: list[str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        load(tmp_path, *models)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            "max_model_length = 1",
            "models.Qwen2.5.max_model_length is not a setting (did you mean models.Qwen2.5.max_model_len?)",
        ),
        ("max_model_len = 0", "models.Qwen2.5.max_model_len: Input should be greater than or equal to 1, got 0"),
    ],
)
def test_an_error_names_the_key_of_a_model_with_dots(tmp_path: Path, settings: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, f"Qwen2.5\n{settings}")

    assert message in str(caught.value)


def test_the_environment_finds_names_that_a_variable_cannot_spell(tmp_path: Path) -> None:
    variable = "BITLADDER_MODELS__HUGGINGFACETB_SMOLLM2_360M_INSTRUCT__TIERS__INT4_G128__HIGH"
    context = "BITLADDER_MODELS__LLAMA3_1_8B__MAX_MODEL_LEN"
    loaded = load(tmp_path, HUB, LLAMA, environ={variable: "99", context: "4096"})

    assert loaded.settings.model(HUB).tier("int4-g128").high == 99
    assert loaded.settings.model(LLAMA).max_model_len == 4096
    assert loaded.sources[f"models.{HUB}.tiers.int4-g128.high"] == f"environment variable {variable}"
    assert loaded.sources[f"models.{LLAMA}.max_model_len"] == f"environment variable {context}"


def test_a_flag_finds_a_name_with_dots(tmp_path: Path) -> None:
    load(tmp_path, "qwen2.5", "qwen2")

    settings = load_settings(
        str(tmp_path / "bitladder.toml"), environ={}, flags={"models.qwen2.5.tiers.int8.high": 77}
    ).settings

    assert [settings.model(name).tier("int8").high for name in ("qwen2.5", "qwen2")] == [77, 64]


def test_a_variable_that_may_mean_two_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'a_b' may mean a/b or a\.b: set it in the file"):
        load(tmp_path, "a/b", "a.b", environ={"BITLADDER_MODELS__A_B__MAX_MODEL_LEN": "1"})


def test_the_table_of_names_is_made_once_and_follows_a_change_of_the_models(tmp_path: Path) -> None:
    settings = load(tmp_path, "smollm2\naliases = ['small']").settings
    model = settings.model("smollm2")
    other = settings.model_copy(update={"models": {"other": model}})

    assert settings.choice("small:int8") is settings.choice("small:int8") == ModelChoice("smollm2", "int8")
    assert other.choice("small:int8") == ModelChoice("other", "int8")
    assert settings == settings.model_copy()
