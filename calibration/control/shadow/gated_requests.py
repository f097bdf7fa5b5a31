"""Requests to one tier that go through the gate and are paid for out of the budget."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import msgspec

from calibration.control.asking.batch_requests import Spent, TierRequests
from calibration.control.shadow.idle_gate import EndOfPassError, Gate
from calibration.control.shadow.ledger import Budget, Usage
from calibration.control.shadow.progress_file import Progress, ShadowFolder
from workers.engines.base import Answer, OnChunk

# A request that traffic has taken back so often has found no quiet minute.
_TRIES = 5
# What reads and writes tokens; the other routes count them.
_WRITES = ("/v1/completions", "/v1/chat/completions")


class _Body(msgspec.Struct, frozen=True):
    prompt: list[int] | str = ""
    max_tokens: int = 0


class _Usage(msgspec.Struct, frozen=True):
    total_tokens: int = 0


class _Answered(msgspec.Struct, frozen=True):
    usage: _Usage = _Usage()


def _utc_day() -> str:
    return datetime.now(UTC).date().isoformat()


@dataclass(frozen=True, slots=True)
class Purse:
    """The budget, and what of it is spent, on disk before each request."""

    budget: Budget
    progress: Progress
    folder: ShadowFolder
    today: Callable[[], str] = _utc_day

    def check(self, usage: Usage, times: int) -> None:
        """Raise EndOfPassError where the day's budget does not have room for so many of this."""
        ledger = self.progress.ledger
        ledger.begin_day(self.today())
        if lack := self.budget.used_up(ledger.in_doubt(), usage * times):
            raise EndOfPassError(f"budget: {lack}")

    def take(self, tokens: int) -> str:
        """Note a request that is about to be sent, and return what it is noted as.

        Raises:
            EndOfPassError: the budget of the day does not have room for it.

        """
        ledger = self.progress.ledger
        expected = ledger.expect(tokens)
        self.check(expected, 1)
        request = secrets.token_hex(8)
        ledger.reserve(request, expected)
        self.folder.save(self.progress)
        return request

    def settle(self, request: str, took: Usage | None) -> None:
        self.progress.ledger.begin_day(self.today())
        self.progress.ledger.settle(request, took)


@dataclass(frozen=True, slots=True)
class GatedRequests:
    """Answers the requests of an Asker: each is sent when its tier is idle, and sent again if traffic took it back."""

    requests: TierRequests
    gate: Gate
    purse: Purse

    async def generate(self, endpoint: str, body: bytes, on_chunk: OnChunk | None) -> Answer:
        for _ in range(_TRIES):
            answer = await self.gate.run(self.requests.tier, lambda: self._send(endpoint, body, on_chunk))
            if answer is not None:
                return answer
            self.purse.progress.counts.interrupted += 1
        raise EndOfPassError(f"busy: {self.requests.tier}: traffic took a request back {_TRIES} times")

    async def _send(self, endpoint: str, body: bytes, on_chunk: OnChunk | None) -> Answer:
        request, took = self.purse.take(most_tokens(endpoint, body)), None
        requests = replace(self.requests, spent=Spent())
        try:
            answer = await requests.generate(endpoint, body, on_chunk)
            took = Usage(1, tokens_of(answer.body), requests.spent.cost)
            return answer
        finally:
            self.purse.settle(request, took)


def most_tokens(endpoint: str, body: bytes) -> int:
    """Return the most tokens that a request can read and write; a text has no more of them than bytes."""
    if endpoint not in _WRITES:
        return 0
    asked = msgspec.json.decode(body, type=_Body)
    return len(asked.prompt if isinstance(asked.prompt, list) else asked.prompt.encode()) + asked.max_tokens


def tokens_of(body: bytes) -> int:
    try:
        return msgspec.json.decode(body, type=_Answered).usage.total_tokens
    except msgspec.MsgspecError:  # no tokens were counted: it has no text
        return 0
