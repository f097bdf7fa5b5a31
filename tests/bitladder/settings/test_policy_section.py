"""bitladder/settings/policy_section.py and policy_forms.py: what is wrong with a policy is refused, and said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitladder.errors import ConfigError
from bitladder.policy_forms import MAX_BYTES, LearnedForm, digest_of, read_form
from bitladder.settings.sections import Settings
from tests.conftest import ROOT, make_settings

FILE = ROOT / "examples" / "learned_policy.json"
LEARNED = json.loads(FILE.read_text(encoding="utf-8"))
LINEAR = {"form": "linear", "high": 1, "intercept": 0, "weights": [0] * 6}
RULE = {"when": ["tokens > 3"], "floor": "int8"}
SPLIT = {"kind": "split", "shares": {"article": 0.5, "fixed:int8": 0.5}}


def load(**flags: Any) -> Settings:  # noqa: ANN401
    return make_settings("redis://127.0.0.1:1/0", **flags)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nonsense", r"policy\.name must be article, .*got 'nonsense'"),
        ("fixed", r"policy\.name must .*got 'fixed'"),
        ("article:int4", r"policy\.name must .*got 'article:int4'"),
        ("fixed:int2", r"policy\.name fixed:int2: model smollm2 has tiers int4, int8, fp8, not 'int2'"),
        ("", r"policy\.name"),
        ("random:int4=0.7,fp8=0.2", "shares must sum to 1, got 0.9"),
        ("random:int4=1,int2=0", "not 'int2'"),
        ("random:int4=2", "shares are written as int4=0.7,fp8=0.3, got 'int4=2'|share must be from 0 to 1"),
        ("random:int4=nan", "got 'int4=nan'"),
        ("random:int4=0.5,int4=0.5", "got 'int4=0.5'"),
        ("random", "got 'random'"),
        ("a\nb", r"policy\.name"),
    ],
)
def test_a_name_that_no_policy_has_is_refused(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load(policy__name=name)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"kind": "magic"}, "policies.mine.kind"),
        ({"kind": "threshold"}, "needs either its file, or rules and otherwise"),
        ({"kind": "threshold", "rules": [], "otherwise": "int4"}, "Expected `array` of length >= 1"),
        ({"kind": "threshold", "rules": [RULE], "otherwise": "int2"}, "not 'int2'"),
        ({"kind": "threshold", "rules": [RULE]}, "Expected `str` of length >= 1 - at `[$].otherwise`"),
        ({"kind": "threshold", "rules": [RULE | {"floor": "x"}], "otherwise": "int4"}, "not 'x'"),
        ({"kind": "threshold", "rules": [{"when": [], "floor": "int4"}], "otherwise": "int4"}, "length >= 1"),
        (
            {"kind": "threshold", "rules": [RULE | {"when": ["iq > 3"]}], "otherwise": "int4"},
            "mine.rules 'iq' is no feature, expected one of ",
        ),
        (
            {"kind": "threshold", "rules": [RULE | {"when": ["tokens > nan"]}], "otherwise": "int4"},
            "got 'tokens > nan'",
        ),
        ({"kind": "threshold", "rules": [RULE | {"than": 3}], "otherwise": "int4"}, "unknown field `than`"),
        ({"kind": "threshold", "rules": [RULE], "otherwise": "int4", "file": str(FILE)}, "needs either its file, or"),
        ({"kind": "threshold", "file": "gone.json"}, "policies.mine.file: cannot read .*gone.json"),
        ({"kind": "learned", "rules": [RULE], "otherwise": "int4"}, "kind learned needs its file"),
        ({"kind": "learned", "form": {"kind": "learned"}}, "is not to be written here"),
        (SPLIT | {"shares": {}}, "shares must be 1 to 16, got 0"),
        (SPLIT | {"shares": {"article": 0.5}}, "shares must sum to 1, got 0.5"),
        (SPLIT | {"shares": {"article": float("nan")}}, "share must be from 0 to 1, got article = nan"),
        (SPLIT | {"shares": {"article": 1.5, "fixed:int4": -0.5}}, "share must be from 0 to 1, got article = 1.5"),
        (SPLIT | {"shares": {"gone": 1.0}}, "got 'gone'"),
        (SPLIT | {"shares": {"mine": 1.0}}, "a split may not divide requests between others: mine is one"),
        (SPLIT | {"shares": {"random:int4=1": 1.0}}, "a split may not divide requests between others"),
        (SPLIT | {"rules": [RULE]}, "shares are all that a policy of the kind split has"),
        (
            {"kind": "threshold", "rules": [RULE], "otherwise": "int4", "shares": {"article": 1}},
            "belong to the kind split",
        ),
        (SPLIT | {"limit": 0.1}, "limit belongs to the kind learned, not to split"),
        ({"kind": "learned", "file": str(FILE), "limit": -0.1}, "limit"),
    ],
)
def test_a_table_that_says_something_wrong_is_refused(table: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load(policies={"mine": table}, policy__name="mine")


def test_a_built_in_name_may_not_be_a_table_s() -> None:
    with pytest.raises(ConfigError, match=r"policies\.article: article needs no table"):
        load(policies={"article": SPLIT})


def test_a_split_s_learned_policy_must_go_up_the_ladder_too(tmp_path: Path) -> None:
    file = tmp_path / "loss.json"
    file.write_text(json.dumps(LEARNED | {"tiers": {"fp8": LINEAR, "int4": LINEAR}}), encoding="utf-8")
    tables = {"loss": {"kind": "learned", "file": str(file)}, "canary": SPLIT | {"shares": {"loss": 1.0}}}

    with pytest.raises(ConfigError, match=r"loss: its tiers must be in the order of model smollm2.*got fp8, int4"):
        load(policies=tables, policy__name="canary")


def test_a_limit_in_the_table_stands_over_the_file_s_and_makes_it_another_policy() -> None:
    table = {"kind": "learned", "file": str(FILE)}
    settings = load(policies={"file": table, "table": table | {"limit": 0.01}})

    of_file, of_table = (settings.policies[name].content for name in ("file", "table"))

    assert isinstance(of_file, LearnedForm)
    assert (of_file.limit, of_table) == (0.12, msgspec.structs.replace(of_file, limit=0.01))
    assert digest_of(of_file) != digest_of(of_table)  # decisions say by which they were made


def test_limits_of_a_key_that_leave_no_tier_are_refused() -> None:
    key = {"hash": "1" * 64, "tenant": "t", "limits": {"floor": "fp8", "ceiling": "int4"}}

    with pytest.raises(ConfigError, match=r"auth\.keys\.acme\.limits\.floor \(fp8\) must not be above .* \(int4\)"):
        load(auth__keys={"acme": key})


def test_a_key_s_policy_must_be_one_for_every_model() -> None:
    key = {"hash": "1" * 64, "tenant": "t", "policy": "fixed:int2"}

    with pytest.raises(ConfigError, match=r"auth\.keys\.acme\.policy fixed:int2: model smollm2 has tiers"):
        load(auth__keys={"acme": key})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "threshold"}, "unknown field|missing required field"),
        ({"schema": 2}, r"at `\$.schema`"),
        ({"version": 0}, r"Expected `int` >= 1 - at `\$.version`"),
        ({"limit": -1}, r"Expected `float` >= 0.0 - at `\$.limit`"),
        ({"limit": "0.1"}, "Expected `float`, got `str`"),
        ({"inputs": []}, "length >= 1"),
        ({"inputs": [{"name": "iq"}]}, "'iq' is no feature, expected one of entropy, "),
        ({"inputs": [{"name": "tokens", "scale": 0}] * 6}, ">= 1e-09"),
        ({"tiers": {}}, "length >= 1"),
        ({"tiers": {"int2": LINEAR}}, "not 'int2'"),
        ({"tiers": {"int8": LINEAR, "int4": LINEAR}}, "must be in the order of model smollm2, int4, int8, fp8"),
        ({"tiers": {"int4": LINEAR | {"form": "neural"}}}, "Invalid value 'neural'"),
        ({"tiers": {"int4": LINEAR | {"weights": [1]}}}, "tier int4: weights must be 6, one per input, got 1"),
        ({"tiers": {"int4": LINEAR | {"squares": [1]}}}, "tier int4: squares must be 6"),
        ({"tiers": {"int4": LINEAR | {"weights": [1e10] * 6}}}, "<= 1000000000"),
        ({"tiers": {"int4": LINEAR | {"low": 2}}}, r"low must not be above high \(1\), got 2"),
        ({"tiers": {"int4": LINEAR | {"bounds": [[0.5, 1], [0.4, 2]]}}}, "bounds must rise"),
        ({"tiers": {"int4": LINEAR | {"bounds": [[0.5, 1], [1, 0.5]]}}}, "bounds must rise"),
        ({"tiers": {"int4": LINEAR | {"bounds": [[0.5, 1]]}}}, r"bounds must reach high \(1\), got 0.5"),
        ({"tiers": {"int4": {"form": "trees", "high": 1, "trees": [[[0, 1, 0, 0]]]}}}, "must lead to later nodes"),
        (
            {"tiers": {"int4": {"form": "trees", "high": 1, "trees": [[[9, 1, 1, 1], [-1, 0]]]}}},
            "input must be below 6",
        ),
        ({"extra": 1}, "unknown field `extra`"),
    ],
)
def test_a_file_that_says_something_wrong_is_refused(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    file = tmp_path / "loss.json"
    file.write_text(json.dumps(LEARNED | change), encoding="utf-8")

    with pytest.raises(ConfigError, match=words):
        load(policies={"loss": {"kind": "learned", "file": str(file)}}, policy__name="loss")


@pytest.mark.parametrize(
    "data", [b"", b"null", b"[1]", b'{"limit": NaN}', b"\xff", b"[" * 100_000, b" " * MAX_BYTES * 2]
)
def test_a_file_that_is_none_is_refused(data: bytes) -> None:
    for name in ("loss.json", "loss.toml"):
        with pytest.raises(ConfigError, match=f"policy file '{name}'"):
            read_form(data, name)


@given(st.binary(max_size=200))
def test_no_bytes_make_a_reader_fail_otherwise(data: bytes) -> None:
    for name in ("a.json", "a.toml"):
        with pytest.raises(ConfigError, match=name):
            read_form(data, name)
