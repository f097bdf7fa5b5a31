"""Clients beside Redis: our producer, retried under its key or many in one call, and programs that know only RQ."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice

import redis
from redis.exceptions import RedisError
from rq import Queue
from rq.serializers import JSONSerializer

from bitladder.endpoints import Endpoint
from bitladder.errors import BitladderError, NotEndedError, PartlySubmittedError
from bitladder.producer import Producer
from bitladder.settings.sections import Settings
from tests.chaos.traffic.history import History, Try
from tests.chaos.traffic.orders import Order
from tests.chaos.traffic.readers import seen_of

THINK_S = 0.15
TRYING_S = 60.0
MANY = 8
RUN_S = 30.0
RQ_TIMEOUT_S = 2.0


def produce(settings: Settings, orders: Iterator[Order], history: History, seed: float) -> None:
    """Carry out orders until there are no more; for a thread of its own."""
    rng = random.Random(seed)
    with Producer(settings) as producer:
        hand = _Hand(producer, history, rng)
        for order in orders:
            time.sleep(rng.uniform(0, 2 * THINK_S))
            history.is_open.wait()
            if rng.random() < 0.1:
                together = [order, *islice(orders, MANY - 1)]
                hand.submit_together([one for one in together if not one.has_deadline])
                together = [one for one in together if one.has_deadline]
            else:
                together = [order]
            for one in together:
                history.begin(one)
                hand.retry(one, hand.run if rng.random() < 0.2 else hand.submit)


def enqueue(settings: Settings, orders: Iterator[Order], history: History, seed: float) -> None:
    """Carry out orders as a program does that was written for RQ; for a thread of its own.

    What RQ's enqueue() did not return for is not tried again: RQ would queue it twice.
    """
    rng, ttl_s = random.Random(seed), round(settings.queue.result_ttl_s)
    with redis.Redis.from_url(settings.redis.url, socket_timeout=RQ_TIMEOUT_S) as client:
        for order in orders:
            time.sleep(rng.uniform(0, 4 * THINK_S))
            history.is_open.wait()
            history.begin(order)
            queue = Queue(order.queue, connection=client, serializer=JSONSerializer)
            endpoint, sent_s = Endpoint.CHAT if order.is_chat else Endpoint.COMPLETIONS, time.time()
            try:
                job = queue.enqueue("workers.generate", body=order.body, endpoint=endpoint, result_ttl=ttl_s)
            except (RedisError, OSError) as error:
                history.tried(order, _tried(sent_s, type(error).__name__))
            else:
                history.accepted(order, job.id, sent_s)
                history.tried(order, _tried(sent_s, "accepted"))


def _tried(sent_s: float, answer: str) -> Try:
    """Note a call; an error of a producer does not say that nothing was accepted."""
    return Try(sent_s=sent_s, heard_s=time.time(), answer=answer, is_unknown=answer != "accepted")


class _Hand:
    def __init__(self, producer: Producer, history: History, rng: random.Random) -> None:
        self._producer, self._history, self._rng = producer, history, rng

    def retry(self, order: Order, attempt: Callable[[Order], str]) -> None:
        end = time.monotonic() + TRYING_S
        while True:
            sent_s = time.time()
            answer = attempt(order)
            self._history.tried(order, _tried(sent_s, answer))
            if answer == "accepted" or not order.key or time.monotonic() > end:
                return
            time.sleep(self._rng.uniform(0.1, 0.6))
            self._history.is_open.wait()

    def submit(self, order: Order) -> str:
        sent_s = time.time()
        try:
            self._history.accepted(order, self._producer.submit(order.body, headers=order.headers), sent_s)
        except BitladderError as error:
            return error.code
        return "accepted"

    def run(self, order: Order) -> str:
        """Await the outcome; it does not say which job it is of, so only its text is looked at."""
        sent_s = time.time()
        try:
            outcome = self._producer.run(order.body, headers=order.headers, timeout_s=RUN_S)
        except NotEndedError:
            return "accepted"
        except BitladderError as error:
            return error.code
        if outcome.code == "job_lost":
            self._history.begin(order).gone.append((sent_s, time.time()))
        else:
            self._history.ran(order, seen_of("run", outcome))
        return "accepted"

    def submit_together(self, orders: list[Order]) -> None:
        """Queue many with one call, and without their envelopes, as large batches are."""
        plain, sent_s = [replace(order, headers={}) for order in orders], time.time()
        for order in plain:
            self._history.begin(order)
        try:
            answers = self._producer.submit_many((order.body for order in plain), lane=None)
        except PartlySubmittedError:
            for order in plain:
                self._history.tried(order, _tried(sent_s, "bundle unreachable"))
            return
        for order, answer in zip(plain, answers, strict=True):
            if isinstance(answer, str):
                self._history.accepted(order, answer, sent_s)
            self._history.tried(order, _tried(sent_s, "accepted" if isinstance(answer, str) else answer.code))
