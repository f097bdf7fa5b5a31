"""models.NAME.redis: which settings the models at one Redis go by, and that no password of it is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitladder.errors import ConfigError
from bitladder.settings.access import key_hash
from bitladder.settings.hidden import MASK
from bitladder.settings.load import load_settings
from bitladder.settings.sections import Settings
from tests.conftest import ROOT

BIG = """
[models.big.redis]
url = "{url}"
ca_file = "ca.pem"
[[models.big.tiers]]
name = "one"
[auth.keys.acme]
hash = "{hash}"
tenant = "acme"
limits = {{ceiling = "int4"}}
"""


def load(folder: Path, url: str) -> Settings:
    config = folder / "bitladder.toml"
    text = (ROOT / "bitladder.toml").read_text(encoding="utf-8")
    config.write_text(text + BIG.format(url=url, hash=key_hash(b"k")), encoding="utf-8")
    return load_settings(str(config), environ={}).settings


def test_each_redis_has_its_models_and_the_keys_with_what_they_say_of_these(tmp_path: Path) -> None:
    first, second = load(tmp_path, "rediss://:secret@big:6379/0").at_each_redis

    assert (list(first.models), first.redis.url) == (["smollm2"], "redis://127.0.0.1:6379/0")
    assert (list(second.models), second.redis.url) == (["big"], "rediss://big:6379/0")
    assert second.redis.ca_file == str(tmp_path / "ca.pem")
    assert [part.auth.keys["acme"].limits and part.auth.keys["acme"].limits.ceiling for part in (first, second)] == [
        "int4",
        None,
    ]
    assert Settings.model_validate(second.model_dump()).model_dump() == second.model_dump()
    assert second.model_names == ("smollm2", "big")
    assert second.at_each_redis == [second]


def test_with_one_redis_the_settings_are_what_they_were(settings: Settings) -> None:
    (part,) = settings.at_each_redis

    assert part is settings


def test_where_every_model_has_its_own_the_first_model_s_is_the_first() -> None:
    whole = load_settings(
        str(ROOT / "bitladder.toml"), environ={"BITLADDER_MODELS__SMOLLM2__REDIS__URL": "redis://:pw@own/1"}
    ).settings

    (part,) = whole.at_each_redis

    assert part.redis.url == "redis://own/1"
    assert part.redis.password is not None
    assert "pw" not in str(whole)
    assert str(part.redis.password) == MASK


@pytest.mark.parametrize("url", ["redis://:topsecret/x@big", "http://:topsecret@big"])
def test_a_wrong_url_is_named_without_its_password(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match=r"models\.big\.redis") as refusal:
        load(tmp_path, url)

    assert "topsecret" not in str(refusal.value)
