"""Producers beside Redis: one order at a time, retried under its key, or many in one call."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice

from dispatcher.errors import BitladderError, QueueUnreachableError
from dispatcher.producer import Producer
from dispatcher.sections import Settings
from tests.chaos.history import History
from tests.chaos.orders import Order
from tests.chaos.readers import seen_of

THINK_S = 0.15
TRIES = 40
MANY = 8
RUN_S = 10.0


def produce(settings: Settings, orders: Iterator[Order], history: History, seed: float) -> None:
    """Carry out orders until there are no more; for a thread of its own."""
    rng = random.Random(seed)
    with Producer(settings) as producer:
        hand = _Hand(producer, history, rng)
        for order in orders:
            time.sleep(rng.uniform(0, 2 * THINK_S))
            if rng.random() < 0.1:
                together = [order, *islice(orders, MANY - 1)]
                hand.submit_together([one for one in together if not one.has_deadline])
                together = [one for one in together if one.has_deadline]
            else:
                together = [order]
            for one in together:
                history.begin(one)
                hand.retry(one, hand.run if rng.random() < 0.2 else hand.submit)


class _Hand:
    def __init__(self, producer: Producer, history: History, rng: random.Random) -> None:
        self._producer, self._history, self._rng = producer, history, rng

    def retry(self, order: Order, attempt: Callable[[Order], str]) -> None:
        for _ in range(TRIES if order.key else 1):
            kind = attempt(order)
            self._history.answered(order, kind)
            if kind == "accepted":
                return
            time.sleep(self._rng.uniform(0.1, 0.6))

    def submit(self, order: Order) -> str:
        try:
            self._history.accepted(order, self._producer.submit(order.body, headers=order.headers))
        except BitladderError as error:
            return error.code
        return "accepted"

    def run(self, order: Order) -> str:
        """Await the outcome; it does not say which job it is of, so only its text is looked at."""
        try:
            outcome = self._producer.run(order.body, headers=order.headers, timeout_s=RUN_S)
        except BitladderError as error:
            return error.code
        if outcome is not None:
            self._history.ran(order, seen_of("run", outcome))
        return "accepted"

    def submit_together(self, orders: list[Order]) -> None:
        """Queue many with one call, and without their envelopes: a call has one for all."""
        plain = [replace(order, headers={}) for order in orders]
        for order in plain:
            self._history.begin(order)
        try:
            answers = self._producer.submit_many((order.body for order in plain), lane=None)
        except QueueUnreachableError:
            self._history.answered(orders[0], "bundle unreachable")
            return
        for order, answer in zip(plain, answers, strict=True):
            if isinstance(answer, str):
                self._history.accepted(order, answer)
            self._history.answered(order, "accepted" if isinstance(answer, str) else answer.code)
