"""bitladder/settings/explain.py: an error says what, where from and what is meant, and repeats no secret."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import pytest

from bitladder.errors import ConfigError
from bitladder.settings.load import load_settings
from tests.conftest import ROOT
from tests.warm_start import BITLADDER

EXAMPLE = str(ROOT / "bitladder.toml")
SECRET = "hunter2"  # noqa: S105  (of the test)


def complaint(file: str = EXAMPLE, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(file, environ=environ)
    return str(caught.value)


def written(tmp_path: Path, text: str) -> str:
    file = tmp_path / "bitladder.toml"
    file.write_text(text, encoding="utf-8")
    return str(file)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("BITLADDER_QUEUE__LEASES", "queue.lease_s"),
        ("BITLADDER_INTAKE__MAX_DEPTH", "queue.max_depth"),
        ("BITLADDER_QUEU__LEASE_S", "queue"),
        ("BITLADDER_MODELS__SMOLLM2__TIERS__INT4__HIHG", "models.smollm2.tiers.int4.high"),
        ("BITLADDER_AUTH__KEYS__ACME__HSAH", "auth.keys.acme.hash"),
        ("BITLADDER_REDIS_URL", "BITLADDER_REDIS__URL"),
        ("BITLADDER_LEASE", "BITLADDER_QUEUE__LEASE_S"),
    ],
)
def test_an_unknown_key_is_told_what_may_be_meant(name: str, meant: str) -> None:
    said = complaint(**{name: SECRET})

    assert f"is not a setting (did you mean {meant}?)" in said
    assert name in said
    assert SECRET not in said


def test_a_key_that_is_like_none_gets_no_suggestion() -> None:
    assert "queue.xyzzy is not a setting; docs/configuration.md has all" in complaint(BITLADDER_QUEUE__XYZZY="1")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("BITLADDER_MODELS__SMOLLM2__TIERS__INT5__HIGH", "there is no tier 'int5'; there is int4, int8, fp8 (from "),
        ("BITLADDER_MODELS__SMOLM2__TIERS__INT4__HIGH", "there is no model 'smolm2'; there is smollm2 (from "),
        ("BITLADDER_MODELS__SMOLLM2__TIERS__INT4__HIGH", "tiers.int4.high: Input should be a valid integer"),
        ("BITLADDER_LANES__OVERFLOW", "written as in TOML, got 'x' (from "),
        (
            "BITLADDER_POLICY__NAME",
            "policy.name must be article, fixed:<tier>, random:<tier>=<share>,... or a table [policies.NAME], got ",
        ),
    ],
)
def test_every_error_names_the_variable_that_it_comes_from(name: str, words: str) -> None:
    said = complaint(**{name: "x"})

    assert words in said
    assert f"(from environment variable {name})" in said


def test_every_error_names_the_file_that_it_comes_from(tmp_path: Path) -> None:
    file = written(
        tmp_path, '[redis]\ntimeout_s = 99\n[models.m]\ntiers = [{name = "a", slots = 0}, {name = "b", low = 64}]'
    )

    lines = complaint(file).splitlines()

    assert [line.split(" ")[0].strip(":") for line in lines] == [
        "redis.timeout_s",
        "models.m.tiers.a.slots",
        "models.m.tiers.b.low",
    ]
    assert [line.rpartition(" (")[2] for line in lines] == [f"from {file}, line {number})" for number in (2, 4, 4)]
    assert "got 99" in lines[0]


def test_what_is_missing_is_said_of_its_file(tmp_path: Path) -> None:
    file = written(tmp_path, "")

    assert complaint(file) == f"models is missing (in {file})"


# A password that is not encoded, in a URL that falls apart at it.
TORN = [
    *(f"redis://me:{SECRET}{sign}x@h:6379/0" for sign in "/?#[]"),
    *(f"redis://me:x{sign}{SECRET}@h:6379/0" for sign in "/?#[]"),
    *(f"rediss://:a@b{sign}{SECRET}@h/0" for sign in "/?#"),
    *(f"redis://h/0?{name}={SECRET}" for name in ("password", "Password", "username", "auth")),
    f"redis://:{SECRET}",
    "redis://:12345",
    f"http://me:{SECRET}@h",
    f"me:{SECRET}@h",
]


@pytest.mark.parametrize("url", TORN)
def test_a_url_that_falls_apart_is_refused_without_its_value(url: str, tmp_path: Path) -> None:
    for secret in (SECRET, "12345"):
        for file, environ in (
            (EXAMPLE, {"BITLADDER_REDIS__URL": url}),
            (written(tmp_path, f'[redis]\nurl = "{url}"\n[models.m]\ntiers = [{{name = "a"}}]'), {}),
            (written(tmp_path, f'redis = "{url}"\n[models.m]\ntiers = [{{name = "a"}}]'), {}),
        ):
            with pytest.raises(ConfigError, match="redis") as caught:
                load_settings(file, environ=environ)
            assert secret not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("password", ["a@b", "a:b", "a%2Fb%3F%23", "a b", "ü€"])
def test_a_password_that_leaves_the_url_whole_is_not_in_it(password: str) -> None:
    loaded = load_settings(EXAMPLE, environ={"BITLADDER_REDIS__URL": f"redis://me:{password}@h:6379/0"})

    assert loaded.settings.redis.url == "redis://h:6379/0"
    assert password not in repr(loaded)


@pytest.mark.parametrize("password", ["[x]", '"x"', "{x = 1}", '["x"]'])
def test_a_password_is_taken_as_it_is_whatever_it_begins_with(password: str) -> None:
    found = load_settings(EXAMPLE, environ={"BITLADDER_REDIS__PASSWORD": password}).settings.redis.password

    assert found
    assert found.get_secret_value() == password


@pytest.mark.parametrize(("url", "command"), [(TORN[0], ("config", "show")), (TORN[-1], ("queues",))])
def test_no_command_prints_the_secret_of_a_url(url: str, command: tuple[str, ...]) -> None:
    environment = {**os.environ, "BITLADDER_REDIS__URL": url, "BITLADDER_CONFIG": EXAMPLE}

    done = BITLADDER.run("bitladder.cli.main", *command, env=environment)

    assert (done.returncode, SECRET in done.stdout + done.stderr) == (2, False)
    assert done.stderr.startswith("bitladder: redis.url")
