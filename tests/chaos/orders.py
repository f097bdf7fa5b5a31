"""What the clients ask for: jobs with a mark of their own, a mix of envelopes, and the answer each must get."""

from __future__ import annotations

import itertools
import random
import string
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

MODEL = "smollm2"
LADDER = ("int4", "int8", "fp8")
# Takes the engine down with all that it runs.
POISON = "echo:crash"
# Of a hundred jobs so many are given this word.
STEERED = (("echo:fault", 1), ("echo:slow", 1), ("echo:busy", 1), (POISON, 0.2))


class Door(StrEnum):
    """How a job comes in."""

    AWAITED = "awaited"
    STREAMED = "streamed"
    JOBS = "jobs"
    PRODUCER = "producer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One job as its client wants it."""

    number: int
    door: Door
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)
    is_cancelled: bool = False  # its client changes its mind
    is_chat: bool = False

    @property
    def mark(self) -> str:
        """The word that only this job's prompt has."""
        return mark(self.number)

    @property
    def key(self) -> str:
        return self.headers.get("Idempotency-Key", "")

    @property
    def has_deadline(self) -> bool:
        return "X-Deadline-Ms" in self.headers

    @property
    def is_poison(self) -> bool:
        return POISON in str(self.body)

    @property
    def expected(self) -> str:
        """The echo's answer: the words of the prompt in turn."""
        prompt = self.body["messages"][0]["content"] if self.is_chat else self.body["prompt"]
        return " ".join(itertools.islice(itertools.cycle(prompt.split()), self.body["max_tokens"]))


def mark(number: int) -> str:
    return f"n{number:06d}"


def draw(number: int, rng: random.Random) -> Order:
    """Return the order of this number."""
    door = rng.choices(list(Door), weights=(35, 15, 35, 15))[0]
    words = [mark(number), *(_word(rng) for _ in range(rng.randint(1, 12)))]
    steer = next((word for word, percent in STEERED if rng.random() * 100 < percent), None)
    if steer:
        words.append(steer)
    is_chat = rng.random() < 0.3
    prompt = " ".join(words)
    asked = {"messages": [{"role": "user", "content": prompt}]} if is_chat else {"prompt": prompt}
    body = {"model": MODEL, "max_tokens": rng.randint(1, 60), **asked}
    if door is Door.STREAMED:
        body["stream"] = True
    return Order(
        number=number,
        door=door,
        body=body,
        headers=_headers(number, rng, is_busy=steer == "echo:busy"),
        is_cancelled=door is Door.JOBS and rng.random() < 0.04,
        is_chat=is_chat,
    )


def _headers(number: int, rng: random.Random, *, is_busy: bool) -> dict[str, str]:
    headers = {"X-Priority": str(rng.randint(1, 10)), "X-Max-Latency-Ms": str(rng.choice((200, 200, 500, 500, 2000)))}
    if rng.random() < 0.15:
        low = rng.randrange(3)
        headers |= {"X-Min-Tier": LADDER[low], "X-Max-Tier": LADDER[rng.randrange(low, 3)]}
    if is_busy or rng.random() < 0.05:  # a job that no engine ever takes ends by its deadline alone
        headers["X-Deadline-Ms"] = str(rng.randint(1000, 8000))
    if rng.random() < 0.75:
        headers["Idempotency-Key"] = f"key-{number}"
    return headers


def _word(rng: random.Random) -> str:
    alphabet = string.ascii_lowercase[:4] if rng.random() < 0.5 else string.ascii_letters + string.digits
    return "".join(rng.choices(alphabet, k=rng.randint(3, 9)))
