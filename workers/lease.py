"""Renew a worker's lease, on a thread of its own: a busy event loop must not cost the worker its jobs.

The same thread reaps: it requeues the jobs of workers whose lease has run out. A lease that no worker could renew, in
an outage of Redis, does not run out; the scripts see to that (`pulse`, scripts/parts/leases.lua), for all reapers.
"""

from __future__ import annotations

import contextlib
import math
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping

import structlog
from redis.exceptions import RedisError

import bitladder
from bitladder.ids import id_bytes
from bitladder.queue.calls.leases import (
    Stray,
    WorkerEntry,
    extend_call,
    read_reaped,
    read_renewed,
    reap_call,
    retire_call,
)
from bitladder.queue.run_script import run_sync
from bitladder.queue.server.connection import connect_sync
from bitladder.queue.server.outage import OUTAGE
from bitladder.script_constants import MAX_SILENT_MS, MAX_SILENT_SHARE
from bitladder.settings.sections import Settings
from workers.clock import ServerClock

log = structlog.get_logger()
# What `rq info` shows as the worker's version.
_SOFTWARE = f"bitladder {bitladder.__version__}"
# How often a worker looks for leases that have run out, and at most at which share of a lease: often enough that the
# scripts do not take it for an outage.
_REAP_INTERVAL_S, _REAP_SHARE = MAX_SILENT_MS / 3000, MAX_SILENT_SHARE / 3
# Between two passes, so that the server gets to other clients.
_REAP_PAUSE_S = 0.01


class LeaseKeeper:
    """Keeps the lease of one worker.

    `held` gives the jobs that the worker knows it holds; `drop` is told those that were lost, and those that were
    cancelled; `tally` gives what RQ's tools show of a worker; `on_reaped` hears how many jobs a lost
    worker had; `order` is told what an operator orders.
    """

    def __init__(
        self,
        settings: Settings,
        model: str,
        tier: str,
        worker: str,
        *,
        held: Callable[[], Mapping[str, int]],
        drop: Callable[[Mapping[str, int], list[str]], None],
        tally: Callable[[], str] = lambda: "0 0 0",
        on_reaped: Callable[[int], None] = lambda _: None,
        order: Callable[[bytes], object] = lambda _: None,
    ) -> None:
        self._client = connect_sync(settings.redis)
        self._settings = settings
        self._worker = WorkerEntry(
            name=worker, model=model, tier=tier, pid=os.getpid(), host=platform.node(), software=_SOFTWARE
        )
        self._held, self._drop, self._tally, self._on_reaped = held, drop, tally, on_reaped
        self._order, self._ordered = order, b""
        # Held in Redis, not here: when each was first seen so (monotonic); and those for which no answer can come.
        self._unknown: dict[Stray, float] = {}
        self._strays: list[Stray] = []
        self.is_ready = False
        self._claiming_since_s = math.inf  # when the claim that is under way was sent (monotonic); none: inf
        self.clock = ServerClock()
        self._stop = threading.Event()
        self._renewing = threading.Lock()  # the pump renews too, when its readiness changes
        self._ended = threading.Event()
        self._ended.set()

    @property
    def ready_ms(self) -> int:
        """What the server's clock shows where the worker is ready, else 0."""
        return self.clock.now_ms() if self.is_ready else 0

    def stop(self) -> None:
        """Stop renewing, leave RQ's lists, and requeue what Redis says that the worker holds."""
        self._stop.set()
        self._ended.wait()
        with contextlib.suppress(RedisError, OSError):
            while not run_sync(self._client, retire_call(self._settings, self._worker)):
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
        held = dict(self._held())
        known = {id_bytes(job_id) for job_id in held}  # of strays: the answer to their claim was only late
        strays = [stray for stray in self._strays if stray[0] not in known]
        call = extend_call(
            self._settings, self._worker, is_ready=self.is_ready, totals=self._tally(), strays=strays, held=held
        )
        asked_s = time.monotonic()
        renewed = read_renewed(run_sync(self._client, call))
        self.clock.observe(renewed.now_ms, asked_s)
        # An answer may still bring them: that of the claim under way, or of a claim that was given up a moment ago.
        now_s = time.monotonic()
        self._unknown = {stray: self._unknown.get(stray, now_s) for stray in renewed.unknown}
        before_s = min(now_s - self._settings.queue.lease_s / 3, self._claiming_since_s)
        self._strays = [stray for stray, since_s in self._unknown.items() if since_s < before_s]
        if renewed.drain != self._ordered:
            self._ordered = renewed.drain
            self._order(renewed.drain)
        if renewed.lost or renewed.cancelled:
            # With their fences: by now the worker may hold the same job by another claim, which is not lost.
            self._drop({job_id: held[job_id] for job_id in renewed.lost}, renewed.cancelled)

    def reap(self) -> None:
        """Requeue the jobs of workers whose lease has run out, for as long as the next renewal can wait."""
        end_s = time.monotonic() + self._settings.queue.lease_s / 6
        while self._reap_batch():
            if time.monotonic() > end_s or self._stop.wait(_REAP_PAUSE_S):
                break

    def _reap_batch(self) -> bool:
        reaped = read_reaped(run_sync(self._client, reap_call(self._settings)))
        if not reaped.worker:
            return False
        self._on_reaped(len(reaped.returned) + len(reaped.ended))
        log.warning("worker reaped", dead=reaped.worker, requeued=len(reaped.returned), ended=len(reaped.ended))
        return True

    def run(self) -> None:
        """Renew and reap until stop(), on a thread of its own, which is started again when this raises."""
        self._ended.clear()
        try:
            self._run()
        finally:
            self._ended.set()

    def _run(self) -> None:
        lease_s = self._settings.queue.lease_s
        # A third of the lease: two renewals may be missed.
        renew_every_s, renew_at_s = lease_s / 3, 0.0
        while not self._stop.wait(min(_REAP_INTERVAL_S, lease_s * _REAP_SHARE)):
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
            OUTAGE.warn("lease not renewed, or nothing reaped", error=str(error))
        else:
            return True
        return False
