"""Renew a worker's lease, on a thread of its own: a busy event loop must not cost the worker its jobs.

The same thread reaps: it requeues the jobs of workers whose lease has run out. A lease that no worker could renew, in
an outage of Redis, does not run out; the scripts see to that (`pulse` in prelude.lua), for all reapers alike.
"""

from __future__ import annotations

import contextlib
import math
import os
import platform
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import redis
import structlog
from redis.exceptions import NoScriptError, RedisError

import bitladder
from bitladder.contract import Lane
from bitladder.ids import id_bytes, read_id
from bitladder.queue.calls import keep
from bitladder.queue.plan import lists_of
from bitladder.queue.run_script import digest, source
from bitladder.queue.server.connection import connect_sync
from bitladder.settings.sections import Settings
from workers.clock import ServerClock

log = structlog.get_logger()
# What `rq info` shows as the worker's version.
SHOWN_VERSION = f"bitladder {bitladder.__version__}"
# Jobs that one pass of the reaper moves; a dead worker with more takes several passes.
REAP_BATCH = 256
# How often a worker looks for leases that have run out, and at most at which share of a lease. Where no worker has
# looked for three times as long, the scripts take it for an outage.
REAP_INTERVAL_S, REAP_SHARE = 1.0, 1 / 9
# Between two passes, so that the server gets to other clients.
REAP_PAUSE_S = 0.01


class LeaseKeeper:
    """Keeps the lease of one worker.

    `held` gives the jobs that the worker knows it holds; `drop` is told those that were lost, and those that were
    cancelled; `tally` gives what RQ's tools show of a worker.
    """

    def __init__(
        self,
        settings: Settings,
        model: str,
        tier: str,
        worker: str,
        *,
        held: Callable[[], Iterable[str]],
        drop: Callable[[list[str], list[str]], None],
        tally: Callable[[], str] = lambda: "0 0 0",
    ) -> None:
        self._client = connect_sync(settings.redis)
        self._settings, self._model, self._tier, self._worker = settings, model, tier, worker
        ladder = settings.model(model).ladder
        self.queues = ",".join(name for lane in Lane for name in lists_of(model, ladder, tier, lane, tier))
        self._held, self._drop, self._tally = held, drop, tally
        # Held in Redis, not here: when each was first seen so (monotonic); and those for which no answer can come.
        self._unknown: dict[bytes, float] = {}
        self._strays: list[bytes] = []
        self.is_ready = False
        self._claiming_since_s = math.inf  # when the claim that is under way was sent (monotonic); none: inf
        self.clock = ServerClock()
        self._stop = threading.Event()
        self._renewing = threading.Lock()  # the pump renews too, when its readiness changes
        self._ended = threading.Event()
        self._ended.set()

    def stop(self) -> None:
        """Stop renewing, leave RQ's lists, and requeue what Redis says that the worker holds."""
        self._stop.set()
        self._ended.wait()
        max_attempts = self._settings.queue.max_attempts
        args: list[str | int] = [self._worker, self.queues, REAP_BATCH, max_attempts, keep(self._settings)]
        with contextlib.suppress(RedisError, OSError):
            while not self._call("retire", self._keys(), args):
                pass  # it held more than fits into one call
        self._client.close()

    @contextlib.contextmanager
    def claiming(self) -> Iterator[None]:
        """Claim in this block: the jobs in the answer are no strays while it is on its way, however long that takes."""
        self._claiming_since_s = time.monotonic()
        try:
            yield
        finally:
            self._claiming_since_s = math.inf

    def renew(self) -> None:
        """Renew once, and hand lost and cancelled ids on."""
        with self._renewing:
            self._renew()

    def _renew(self) -> None:
        lease_ms = int(self._settings.queue.lease_s * 1000)
        held = list(self._held())
        known = {id_bytes(job_id) for job_id in held}  # of strays: the answer to their claim was only late
        strays = [job for job in self._strays if job not in known]
        args: list[str | int | bytes] = [
            self._worker,
            lease_ms,
            int(self.is_ready),
            self._model,
            self._tier,
            self.queues,
            os.getpid(),
            platform.node(),
            SHOWN_VERSION,
            self._tally(),
            self._settings.queue.max_attempts,
            keep(self._settings),
            len(strays),
            *strays,
            *held,
        ]
        asked_s = time.monotonic()
        now_ms, lost, cancelled, unknown = self._call("extend", self._keys(), args)
        self.clock.observe(int(now_ms), asked_s)
        # An answer may still bring them: that of the claim under way, or of a claim that was given up a moment ago.
        now_s = time.monotonic()
        self._unknown = {job: self._unknown.get(job, now_s) for job in unknown}
        before_s = min(now_s - self._settings.queue.lease_s / 3, self._claiming_since_s)
        self._strays = [job for job, since_s in self._unknown.items() if since_s < before_s]
        if lost or cancelled:
            self._drop([read_id(job) for job in lost], [read_id(job) for job in cancelled])

    def reap(self) -> None:
        """Requeue the jobs of workers whose lease has run out, for as long as the next renewal can wait."""
        end_s = time.monotonic() + self._settings.queue.lease_s / 6
        while self._reap_batch():
            if time.monotonic() > end_s or self._stop.wait(REAP_PAUSE_S):
                break

    def _reap_batch(self) -> bool:
        queue = self._settings.queue
        args: list[str | int] = [REAP_BATCH, queue.max_attempts, keep(self._settings), int(queue.lease_s * 1000)]
        dead, returned, ended = self._call("reap", ["bl:workers", "rq:workers"], args)
        if dead:
            log.warning("worker reaped", dead=dead.decode(), requeued=len(returned), ended=len(ended))
        return bool(dead)

    def run(self) -> None:
        """Renew and reap until stop(), on a thread of its own, which is started again when this raises."""
        self._ended.clear()
        # A thread does not inherit what the event loop's tasks have bound.
        structlog.contextvars.bind_contextvars(model=self._model, tier=self._tier, worker=self._worker)
        try:
            self._run()
        finally:
            self._ended.set()

    def _run(self) -> None:
        lease_s = self._settings.queue.lease_s
        # A third of the lease: two renewals may be missed.
        renew_every_s, renew_at_s = lease_s / 3, 0.0
        while not self._stop.wait(min(REAP_INTERVAL_S, lease_s * REAP_SHARE)):
            if (now := time.monotonic()) >= renew_at_s:
                if not self._done(self.renew):
                    continue  # tried again in the next round; a worker that could not renew does not reap
                renew_at_s = now + renew_every_s
            self._done(self.reap)

    @staticmethod
    def _done(step: Callable[[], None]) -> bool:
        try:
            step()
        except (RedisError, OSError) as error:
            log.warning("lease not renewed, or nothing reaped", error=str(error))
        else:
            return True
        return False

    def _keys(self) -> list[str]:
        live = f"bl:live:{self._model}:{self._tier}"
        name = self._worker
        return [
            "bl:workers",
            live,
            f"bl:inflight:{name}",
            f"bl:cancel:{name}",
            f"rq:worker:{name}",
            "rq:workers",
        ]

    def _call(self, script: str, keys: list[str], args: Iterable[str | int | bytes]) -> Any:  # noqa: ANN401  (each script has an answer of its own)
        arguments = [*keys, *args]
        try:
            return self._evalsha(self._client, script, len(keys), arguments)
        except NoScriptError:
            self._client.script_load(source(script))
            return self._evalsha(self._client, script, len(keys), arguments)

    @staticmethod
    def _evalsha(client: redis.Redis, script: str, count: int, arguments: list[str | int | bytes]) -> Any:  # noqa: ANN401
        return client.evalsha(digest(script), count, *arguments)
