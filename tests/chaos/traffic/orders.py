"""What the clients ask for: jobs with a mark of their own, a mix of envelopes, and the answer each must get."""

from __future__ import annotations

import itertools
import random
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

MODEL = "smollm2"
LADDER = ("int4", "int8", "fp8")
# Takes the engine down with all that it runs.
POISON = "echo:crash"
SLOW = "echo:slow"  # eight tokens a second
# Of a hundred jobs so many are given this word. Faults in all are below the share that restarts an engine, and a busy
# engine keeps all jobs of its worker waiting.
STEERED = (("echo:fault", 0.2), (SLOW, 0.5), ("echo:busy", 0.05), (POISON, 0.05))
# Each kind of client has a million numbers.
NUMBERS = 1_000_000


class Delivery(StrEnum):
    """How a job comes in."""

    AWAITED = "awaited"
    STREAMED = "streamed"
    JOBS = "jobs"  # and looks later
    EVENTS = "events"  # and reads its tokens, with interruptions
    PRODUCER = "producer"
    RQ = "rq"  # a program that knows RQ, and not bitladder


HTTP = {Delivery.AWAITED: 30, Delivery.STREAMED: 15, Delivery.JOBS: 35, Delivery.EVENTS: 20}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One job as its client wants it."""

    number: int
    delivery: Delivery
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)
    is_cancelled: bool = False  # its client changes its mind
    is_chat: bool = False
    queue: str = ""  # of RQ's clients, who name one
    is_long: bool = False  # it runs for longer than a lease

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
    def is_repeatable(self) -> bool:
        """Whether a stream of it may go on with another execution."""
        return self.body.get("temperature") == 0

    @property
    def is_poison(self) -> bool:
        return POISON in str(self.body)

    @property
    def lowest(self) -> int:
        """The place in the ladder of the lowest tier that may run it."""
        tier = self.queue.split(":")[1] if self.queue else self.headers.get("X-Min-Tier", LADDER[0])
        return LADDER.index(tier)

    @property
    def highest(self) -> int:
        return LADDER.index(self.headers.get("X-Max-Tier", LADDER[-1]))

    @property
    def words(self) -> list[str]:
        """The echo's answer: the words of the prompt in turn."""
        prompt = self.body["messages"][0]["content"] if self.is_chat else self.body["prompt"]
        return list(itertools.islice(itertools.cycle(prompt.split()), self.body["max_tokens"]))

    @property
    def expected(self) -> str:
        return " ".join(self.words)


def mark(number: int) -> str:
    return f"n{number:07d}"


def orders(seed: int, kind: int, draw: Callable[[int, random.Random], Order]) -> Iterator[Order]:
    """Return endless orders of one kind of client, each drawn from the seed and its number alone.

    No generator: several threads take from it.
    """
    numbers = itertools.count(kind * NUMBERS)
    return map(lambda number: draw(number, random.Random(f"{seed} {number}")), numbers)


def draw_http(number: int, rng: random.Random) -> Order:
    return _draw(number, rng, rng.choices(list(HTTP), weights=list(HTTP.values()))[0])


def draw_left(number: int, rng: random.Random) -> Order:
    """Return an order whose client waits for it, and will leave."""
    return _draw(number, rng, rng.choice((Delivery.AWAITED, Delivery.STREAMED)))


def draw_produced(number: int, rng: random.Random) -> Order:
    return _draw(number, rng, Delivery.PRODUCER)


def draw_rq(number: int, rng: random.Random) -> Order:
    """Return an order without an envelope: RQ's clients say only which queue."""
    steer = next((word for word, percent in STEERED if word != "echo:busy" and rng.random() * 100 < percent), None)
    lane = rng.choice(("urgent", "normal", "batch"))
    body, is_chat = _body(number, rng, steer, rng.randint(1, 60))
    return Order(
        number=number, delivery=Delivery.RQ, body=body, is_chat=is_chat, queue=f"{MODEL}:{rng.choice(LADDER)}:{lane}"
    )


def draw_long(number: int, rng: random.Random) -> Order:
    """Return an order that runs for 20 to 28 s: no outage that is longer than a lease leaves it alone.

    On the lower tiers, so that the highest can be killed and stopped without running them again.
    """
    body, is_chat = _body(number, rng, SLOW, rng.randint(160, 220))
    delivery = rng.choice(list(HTTP))
    if delivery in (Delivery.STREAMED, Delivery.EVENTS):
        body |= {"stream": True, "temperature": number % 2}
    headers = {"X-Request-Id": mark(number), "X-Max-Tier": rng.choice(LADDER[:2])}
    if rng.random() < 0.8:
        headers["Idempotency-Key"] = mark(number)
    return Order(number=number, delivery=delivery, body=body, headers=headers, is_chat=is_chat, is_long=True)


def _draw(number: int, rng: random.Random, delivery: Delivery) -> Order:
    steer = next((word for word, percent in STEERED if rng.random() * 100 < percent), None)
    body, is_chat = _body(number, rng, steer, rng.randint(1, 60))
    if delivery in (Delivery.STREAMED, Delivery.EVENTS):
        body |= {"stream": True, "temperature": number % 2}
    return Order(
        number=number,
        delivery=delivery,
        body=body,
        headers=_headers(number, rng, is_busy=steer == "echo:busy"),
        is_cancelled=delivery is Delivery.JOBS and rng.random() < 0.04,
        is_chat=is_chat,
    )


def _body(number: int, rng: random.Random, steer: str | None, tokens: int) -> tuple[dict[str, Any], bool]:
    words = [mark(number), *(_word(rng) for _ in range(rng.randint(1, 12))), *([steer] if steer else [])]
    is_chat, prompt = rng.random() < 0.3, " ".join(words)
    chat = {"messages": [{"role": "user", "content": prompt}], "ignore_eos": True}  # else it ends with its words
    return {"model": MODEL, "max_tokens": tokens, **(chat if is_chat else {"prompt": prompt})}, is_chat


def _headers(number: int, rng: random.Random, *, is_busy: bool) -> dict[str, str]:
    headers = {
        "X-Request-Id": mark(number),  # in the outcome, where the prompt is not
        "X-Priority": str(rng.randint(1, 10)),
        "X-Max-Latency-Ms": str(rng.choice((200, 200, 500, 500, 2000))),
    }
    if rng.random() < 0.15:
        low = rng.randrange(3)
        headers |= {"X-Min-Tier": LADDER[low], "X-Max-Tier": LADDER[rng.randrange(low, 3)]}
    if is_busy or rng.random() < 0.05:  # a job that no engine ever takes ends by its deadline alone
        headers["X-Deadline-Ms"] = str(rng.randint(1000, 8000))
    if rng.random() < 0.75:
        headers["Idempotency-Key"] = mark(number)
    return headers


def _word(rng: random.Random) -> str:
    alphabet = string.ascii_lowercase[:4] if rng.random() < 0.5 else string.ascii_letters + string.digits
    return "".join(rng.choices(alphabet, k=rng.randint(3, 9)))
