"""bitladder/settings/hidden.py, and that whatever shows a setting shows it so."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from bitladder.errors import ConfigError
from bitladder.settings.explain import leaves
from bitladder.settings.hidden import MASK, hidden
from bitladder.settings.load import load_settings
from tests.conftest import ROOT, make_settings
from tests.warm_start import BITLADDER
from workers.engines.errors import EngineFaultError
from workers.engines.http import HttpEngine

EXAMPLE = str(ROOT / "bitladder.toml")
SIGNS = '#/@?:[]%&=\\ ;"\t\n℀'


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("http://me:SECRET@h:1/v1", f"http://{MASK}@h:1/v1"),
        ("http://SECRET/x@y@h", f"http://{MASK}@h"),
        ("http://h:1/v1", "http://h:1/v1"),
        ("plain", "plain"),
        (7, 7),
        (("--api-key", "SECRET", "--max-tokens", "1"), ["--api-key", MASK, "--max-tokens", "1"]),
        (["--hf-token=SECRET", "--use-key", "--seed"], [f"--hf-token={MASK}", "--use-key", "--seed"]),
        (
            {"HF_TOKEN": "SECRET", "HTTPS_PROXY": "http://SECRET@h"},
            {"HF_TOKEN": MASK, "HTTPS_PROXY": f"http://{MASK}@h"},
        ),
        ({"args": ["--api-key", "SECRET"], "env": {"A": "b"}}, {"args": ["--api-key", MASK], "env": {"A": "b"}}),
    ],
)
def test_a_secret_in_a_value_is_not_shown(value: Any, expected: Any) -> None:  # noqa: ANN401  (any value)
    assert hidden(value) == expected


def _torn_urls() -> Iterator[str]:
    for first, second in itertools.product(SIGNS, repeat=2):
        for start in ("rediss://me:", "unix://:"):
            end = "@/tmp/redis.sock" if start.startswith("unix") else "@h:6379/0"
            yield f"{start}SECRET{first}SECRET{second}SECRET{end}"


def test_a_password_with_any_two_signs_is_hidden_or_refused_without_its_value() -> None:
    for url in _torn_urls():
        try:
            settings = load_settings(EXAMPLE, environ={"BITLADDER_REDIS__URL": url}).settings
        except ConfigError as error:
            shown = str(error)
        else:
            shown = json.dumps(leaves(settings.model_dump(mode="json"))) + repr(settings)
            assert settings.redis.password
        assert "SECRET" not in shown, url


@pytest.mark.parametrize("address", ["me:SECRET@h:26379", "redis://SECRET:26379", "redis://:SECRET@h:26379"])
def test_a_sentinel_with_a_password_is_refused_without_it(address: str) -> None:
    with pytest.raises(ConfigError, match=r"redis\.sentinels must be a list of host:port") as caught:
        make_settings("redis://h", redis__sentinels=[address])

    assert "SECRET" not in str(caught.value)


def test_config_show_shows_no_secret_of_an_engine() -> None:
    environment = os.environ | {
        "BITLADDER_CONFIG": EXAMPLE,
        "BITLADDER_VLLM__ENV": '{HF_TOKEN = "SECRET", ANY_NAME = "SECRET"}',
        "BITLADDER_VLLM__ARGS": '["--api-key", "SECRET", "--seed", "1"]',
        "BITLADDER_MODELS__SMOLLM2__TIERS__INT4__URL": "http://me:SECRET@h:1",
    }
    for arguments in (["config", "show"], ["config", "show", "--json"]):
        done = BITLADDER.run("bitladder.cli.main", *arguments, env=environment)

        assert done.returncode == 0
        assert "SECRET" not in done.stdout + done.stderr
        assert "vllm.env.HF_TOKEN" in done.stdout
        assert "--seed" in done.stdout


@pytest.mark.parametrize(
    "flags",
    [
        {"vllm__env": {"HF_TOKEN": ["SECRET"]}},
        {"vllm__env": "HF_TOKEN=SECRET"},
        {"models__smollm2__tiers__int4__slots": "http://me:SECRET@h"},
    ],
)
def test_a_wrong_value_is_told_without_its_secret(flags: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        make_settings("redis://h", **flags)

    assert "SECRET" not in str(caught.value)


async def test_an_unreachable_engine_is_named_without_its_password() -> None:
    engine = HttpEngine("http://me:SECRET@127.0.0.1:1", "smollm2")

    with pytest.raises(EngineFaultError, match=r"no healthy engine at http://\*+@127\.0\.0\.1:1: ") as caught:
        await engine.start()
    await engine.stop()

    assert "SECRET" not in str(caught.value)
