"""Strata, the split, and how many of each stratum are chosen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.sample.prompt import Prompt
from calibration.sample.reservoir import Member, Stratum
from calibration.sample.strata import CALIBRATION, HELDOUT, choose, length_of, mixed, shares, split_of, stratum_of
from tests.calibration.sample.conftest import prompts


def stratum(name: str) -> Stratum:
    return Stratum(name, "en", "0-127", "")


def test_a_stratum_is_kind_language_length_and_tier() -> None:
    its = stratum_of(Prompt("What is the capital of Portugal? " * 5, tier="int8"))

    assert its == Stratum("prose", "en", "128-511", "int8")


@pytest.mark.parametrize(("characters", "name"), [(0, "0-127"), (127, "0-127"), (128, "128-511"), (9000, "8192+")])
def test_lengths_are_classes(characters: int, name: str) -> None:
    assert length_of(characters) == name


def test_the_split_follows_from_the_content_alone() -> None:
    texts = prompts(2000)
    splits = [split_of(Member(number, stratum("prose"), text)) for number, text in enumerate(texts)]
    spelled = [split_of(Member(0, stratum("code"), f" {text.upper()}")) for text in texts]

    assert splits == spelled
    assert 330 < splits.count(HELDOUT) < 470
    assert split_of(Member(0, stratum("prose"), texts[0], split=CALIBRATION)) == CALIBRATION


def test_choosing_follows_the_traffic_and_leaves_no_stratum_out() -> None:
    seen = {stratum("prose"): 9000, stratum("code"): 900, stratum("log"): 1}
    members = [Member(number, its, "x") for number, its in enumerate([*seen] * 200)]

    counts = [member.stratum.kind for member in choose(members, seen, 100)]

    assert counts.count("prose") == 90
    assert counts.count("code") == 9
    assert counts.count("log") == 1


def test_every_beginning_of_a_set_has_the_kinds_in_their_proportion() -> None:
    """Also where a kind is chosen from so many that its numbers are all small."""
    shares = {"chat": 200, "prose": 150, "code": 100, "log": 50, "json": 12}
    members = [
        Member(number * (1 if kind == "chat" else 10**9), Stratum(kind, language, "0-127", ""), "x")
        for at, (kind, share) in enumerate(shares.items())
        for number, language in zip(range(at * 1000, at * 1000 + share), ["en", "de"] * 100, strict=False)
    ]

    for first in (24, 56, 512):
        found = mixed(members)[:first]
        for kind, share in shares.items():
            assert abs([its.stratum.kind for its in found].count(kind) - first * share / 512) < 1
    chats = [its.stratum.language for its in mixed(members)[:100] if its.stratum.kind == "chat"]
    assert 10 < chats.count("de") < 30


def test_what_a_stratum_cannot_give_goes_to_the_others() -> None:
    weights = {stratum("prose"): 900, stratum("code"): 100}

    assert shares(weights, {stratum("prose"): 10, stratum("code"): 80}, 50) == {
        stratum("prose"): 10,
        stratum("code"): 40,
    }


@given(
    st.dictionaries(st.sampled_from("abcdefghij"), st.tuples(st.integers(1, 10**6), st.integers(1, 50))),
    st.integers(1, 99),
)
def test_shares_give_what_there_is_and_never_more(strata: dict[str, tuple[int, int]], count: int) -> None:
    weights = {stratum(name): weight for name, (weight, _) in strata.items()}
    most = {stratum(name): its for name, (_, its) in strata.items()}

    given_ = shares(weights, most, count)

    assert sum(given_.values()) == min(count, sum(most.values()))
    assert all(0 <= given_[its] <= most[its] for its in most)
