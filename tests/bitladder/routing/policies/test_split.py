"""Policies that draw (random_split.py, split.py): the same for the same requester, in the shares that are asked for."""

from __future__ import annotations

from collections import Counter

from bitladder.decision import Decision
from bitladder.routing.accept import accept
from bitladder.settings.sections import Settings
from tests.bitladder.routing.policies.test_policies import incoming
from tests.conftest import make_settings

URL = "redis://127.0.0.1:1/0"


def decisions(
    settings: Settings, count: int, *, key: str | None = None, request_id: str | None = None
) -> list[Decision]:
    """Return the decisions on requests whose ids and keys count up, but for those that stay."""
    asked = [
        incoming(key="", tenant=key or f"k{number}", request_id=f"r{number}" if request_id is None else request_id)
        for number in range(count)
    ]
    return [accept(one, settings).submission.request.decision for one in asked]


def test_random_gives_each_request_a_tier_by_its_share_and_the_same_one_each_time() -> None:
    settings = make_settings(URL, policy__name="random:int4=0.7,fp8=0.3")

    drawn = decisions(settings, 2000)

    assert drawn == decisions(settings, 2000)
    assert abs(Counter(decision.floor for decision in drawn)["int4"] / 2000 - 0.7) < 0.04
    assert drawn[0].label == "random:int4=0.7,fp8=0.3@1"
    assert "is within the share of" in drawn[0].reason


def test_requests_without_an_id_are_drawn_by_their_bodies() -> None:
    settings = make_settings(URL, policy__name="random:int4=0.5,fp8=0.5")
    bodies = [incoming(f"prompt {number}", request_id="") for number in range(40)]

    floors = [accept(body, settings).submission.request.decision.floor for body in bodies]

    assert set(floors) == {"int4", "fp8"}


def test_a_key_keeps_the_policy_that_a_split_gave_it_and_a_share_that_grows_takes_no_key_back() -> None:
    def labels(share: float) -> list[str | None]:
        shares = {"fixed:fp8": share, "article": round(1 - share, 3)}
        canary = {"kind": "split", "shares": shares}
        settings = make_settings(URL, policy__name="canary", policies={"canary": canary})
        assert len({decision.label for decision in decisions(settings, 50, key="acme")}) == 1
        return [decision.label for decision in decisions(settings, 1000)]

    few, more = labels(0.1), labels(0.3)

    assert set(few) == {"canary/fixed:fp8@1", "canary/article@1"}
    assert abs(few.count("canary/fixed:fp8@1") / 1000 - 0.1) < 0.03
    assert all(after == before for before, after in zip(few, more, strict=True) if before == "canary/fixed:fp8@1")


def test_a_split_by_requests_divides_those_of_one_key() -> None:
    shares = {"fixed:fp8": 0.5, "article": 0.5}
    tables = {"canary": {"kind": "split", "shares": shares, "drawn_by": "request"}}
    settings = make_settings(URL, policy__name="canary", policies=tables)

    assert len({decision.label for decision in decisions(settings, 50, key="acme")}) == 2


def test_two_experiments_draw_independently() -> None:
    def arms(name: str) -> list[bool]:
        table = {"kind": "split", "shares": {"fixed:fp8": 0.5, "article": 0.5}}
        settings = make_settings(URL, policy__name=name, policies={name: table})
        return [decision.floor == "fp8" for decision in decisions(settings, 400)]

    same = sum(one == other for one, other in zip(arms("a"), arms("b"), strict=True))

    assert 150 < same < 250
