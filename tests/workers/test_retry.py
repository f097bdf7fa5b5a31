"""workers/retry.py: calls that are made again until Redis answers."""

from __future__ import annotations

import pytest

from bitladder.errors import QueueUnreachableError
from workers import retry
from workers.retry import until_reachable


async def test_a_call_is_made_again_until_it_is_answered_and_each_failure_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retry, "MAX_PAUSE_S", 0.01)
    left = [QueueUnreachableError("one"), QueueUnreachableError("two")]
    failures: list[str] = []

    async def call() -> str:
        if left:
            raise left.pop(0)
        return "answer"

    assert await until_reachable(call, lambda error: failures.append(str(error))) == "answer"
    assert failures == ["one", "two"]


async def test_another_error_is_not_tried_again() -> None:
    async def call() -> None:
        raise ValueError("a defect")

    with pytest.raises(ValueError, match="a defect"):
        await until_reachable(call)
