"""workers/engines/echo_model/draft.py: where a choice ends, and what of it is seen when."""

from __future__ import annotations

import itertools

from workers.engines.echo_model.draft import Draft, Stops, draft

NONE = Stops([])


def words(*texts: str) -> list[str]:
    return list(texts)


def test_it_ends_with_its_tokens_or_with_the_last_that_it_may_have() -> None:
    assert draft(words("a", " b"), 5, NONE).finish_reason == "stop"
    assert draft(itertools.repeat(" a"), 2, NONE) == Draft([" a", " a"], [" a", " a"], "length")


def test_a_stop_text_that_lies_in_several_tokens_is_never_seen_in_part() -> None:
    stopped = draft(words("one", " tw", "o th", "ree"), 9, Stops([" two"]))

    assert (list(stopped.texts), stopped.finish_reason, stopped.stop_reason) == (["", "one", ""], "stop", " two")
    assert len(stopped.tokens) == 3  # all that were made


def test_what_was_held_back_comes_at_the_end_when_there_is_no_stop() -> None:
    held = draft(words("one", " tw"), 9, Stops(["never seen"]))

    assert ("".join(held.texts), held.finish_reason) == ("one tw", "stop")


def test_a_stop_text_is_shown_on_demand_and_waits_for_the_fewest_tokens() -> None:
    assert "".join(draft(words("a", " b", " c"), 9, Stops(["b"], is_shown=True)).texts) == "a b"
    assert "".join(draft(words("a", " b", " a", " c"), 9, Stops(["a"], min_tokens=2)).texts) == "a b "
