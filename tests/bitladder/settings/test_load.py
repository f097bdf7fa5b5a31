"""bitladder/settings/load.py: file, environment, flags, and errors that say what to do."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bitladder.errors import ConfigError
from bitladder.settings.load import load_settings

EXAMPLE = str(Path(__file__).parents[3] / "bitladder.toml")


def test_flags_win_over_the_environment_and_the_environment_over_the_file() -> None:
    environ = {"BITLADDER_MODELS__SMOLLM2__TIERS__INT4__HIGH": "99", "BITLADDER_QUEUE__LEASE_S": "5"}

    loaded = load_settings(EXAMPLE, environ=environ, flags={"queue.lease_s": 7})

    assert loaded.settings.model("smollm2").tier("int4").high == 99
    assert loaded.settings.queue.lease_s == 7
    assert loaded.sources["queue.lease_s"] == "flag"
    assert "BITLADDER_MODELS__SMOLLM2__TIERS__INT4__HIGH" in loaded.sources["models.smollm2.tiers.int4.high"]


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        (
            {"BITLADDER_QUEUE__LEASE_S": "soon"},
            ["queue.lease_s", "valid number", "'soon'", "BITLADDER_QUEUE__LEASE_S"],
        ),
        ({"BITLADDER_QUEUE__LEASES": "5"}, ["queue.leases", "is not a setting"]),
        ({"BITLADDER_POLICY__NAME": "magic"}, ["policy.name", "article, fixed:<tier>", "magic"]),
        (
            {"BITLADDER_QUEUE__DURABILITY": "always"},
            ["queue.durability", "'memory', 'everysec' or 'fsync'", "'always'"],
        ),
        ({"BITLADDER_REDIS__SENTINELS": '["one", "two:2"]'}, ["redis.sentinels", "host:port", "'one'"]),
        (
            {"BITLADDER_REDIS__SENTINELS": '["one:1"]', "BITLADDER_REDIS__URL": "unix:///run/redis"},
            ["redis.url", "redis:// or rediss://", "unix:///run/redis"],
        ),
        ({"BITLADDER_REDIS__URL": "localhost:6379"}, ["redis.url", "rediss", "BITLADDER_REDIS__URL"]),
        ({"BITLADDER_LEASE": "5"}, ["BITLADDER_LEASE", "BITLADDER_<SECTION>__<KEY>"]),
    ],
)
def test_a_wrong_value_is_named_with_its_key_and_what_is_expected(environ: dict[str, str], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(EXAMPLE, environ=environ)

    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_tracing_without_its_extra_is_refused_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)  # as if it were not installed
    with pytest.raises(ConfigError, match=r"tracing.enabled: .*pip install 'bitladder\[otel\]'"):
        load_settings(EXAMPLE, environ={"BITLADDER_TRACING__ENABLED": "true"})


def test_relative_paths_begin_at_the_configuration_file_s_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "bitladder.toml").write_text(
        "[vllm]\npython = 'engine/python'\n[[models.m.tiers]]\nname = 'a'\n", encoding="utf-8"
    )
    monkeypatch.chdir(tmp_path)

    settings = load_settings("etc/bitladder.toml", environ={"BITLADDER_REDIS__PASSWORD_FILE": "password"}).settings
    others = {
        "BITLADDER_REDIS__DATA_DIR": "/data",
        "BITLADDER_VLLM__PYTHON": "python3",
        "BITLADDER_FILES__STORE": "s3://bucket/files",
    }
    other = load_settings("etc/bitladder.toml", environ=others).settings

    assert settings.redis.data_dir == str(folder / "var" / "valkey")
    assert settings.redis.password_file == str(folder / "password")
    assert settings.redis.ca_file == ""
    assert settings.vllm.python == str(folder / "engine" / "python")
    assert settings.files.store == str(folder / "var" / "files")
    assert other.redis.data_dir == "/data"
    assert other.files.store == "s3://bucket/files"
    assert other.vllm.python == "python3"  # a program in PATH


def test_limits_of_a_tier_may_come_from_the_environment() -> None:
    environ = {"BITLADDER_PUBLISH__TIERS__INT8__MAX_KL": "0.03"}

    loaded = load_settings(EXAMPLE, environ=environ)

    assert loaded.settings.publish.limits_of("int8").max_kl == 0.03
    assert loaded.settings.publish.limits_of("int4").max_kl == 0.2
