"""Renew the leases of a worker, on a thread of its own: a busy event loop must not cost it its jobs.

The same thread reaps: it takes the jobs of workers whose lease ran out. That a lease which nobody could renew does not
run out is seen to by the scripts (`pulse` in prelude.lua), for all reapers alike.
"""

from __future__ import annotations

import contextlib
import math
import os
import platform
import threading
import time
from collections.abc import Callable, Iterable, Iterator

import structlog
from redis.exceptions import RedisError

from bitladder.ids import id_bytes
from bitladder.queue.calls import (
    WorkerEntry,
    extend_call,
    read_reaped,
    read_renewed,
    reap_call,
    retire_call,
)
from bitladder.queue.run_script import run_sync
from bitladder.queue.server.connection import connect_sync
from bitladder.script_constants import MAX_SILENT_MS, MAX_SILENT_SHARE
from bitladder.settings.sections import Settings
from workers.clock import ServerClock

log = structlog.get_logger()
# How soon after a lease ran out a worker looks for it, and at most this share of a lease: often enough that the scripts
# do not take it for an outage.
REAP_EVERY_S, REAP_SHARE = MAX_SILENT_MS / 3000, MAX_SILENT_SHARE / 3
# Between two passes others have the server.
REAP_PAUSE_S = 0.01


class LeaseKeeper:
    """Keeps one worker's leases; tells which jobs were lost or cancelled."""

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
        self._settings = settings
        self._worker = WorkerEntry(name=worker, model=model, tier=tier, pid=os.getpid(), host=platform.node())
        self._held, self._drop, self._tally = held, drop, tally
        self._unknown: dict[bytes, float] = {}  # held in Redis, not here: id -> first seen (monotonic)
        self._strays: list[bytes] = []
        self.is_ready = False
        self._claiming_since_s = math.inf  # when the claim that is under way was sent (monotonic); none: inf
        self.clock = ServerClock()
        self._stop = threading.Event()
        self._renewing = threading.Lock()  # the pump renews too, when its readiness changes
        self._ended = threading.Event()
        self._ended.set()

    def stop(self) -> None:
        """Stop renewing, leave RQ's lists, and requeue what the worker holds without knowing it."""
        self._stop.set()
        self._ended.wait()
        with contextlib.suppress(RedisError, OSError):
            while not run_sync(self._client, retire_call(self._settings, self._worker)):
                pass  # it held more than fits into one call
        self._client.close()

    @contextlib.contextmanager
    def claiming(self) -> Iterator[None]:
        """Claim in this block: what the answer brings is no stray while it arrives, however long that takes."""
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
        held = list(self._held())
        arrived = {id_bytes(job_id) for job_id in held}  # the answer to their claim was only late
        strays = [job for job in self._strays if job not in arrived]
        call = extend_call(
            self._settings, self._worker, is_ready=self.is_ready, totals=self._tally(), strays=strays, held=held
        )
        asked_s = time.monotonic()
        renewed = read_renewed(run_sync(self._client, call))
        self.clock.heard(renewed.now_ms, asked_s)
        # A claim's answer may still be on its way: that of the one under way, or of one that was given up a moment ago.
        now = time.monotonic()
        self._unknown = {job: self._unknown.get(job, now) for job in renewed.unknown}
        latest = min(now - self._settings.queue.lease_s / 3, self._claiming_since_s)
        self._strays = [job for job, since in self._unknown.items() if since < latest]
        if renewed.lost or renewed.cancelled:
            self._drop(renewed.lost, renewed.cancelled)

    def reap(self) -> None:
        """Take the jobs of workers whose lease ran out, for as long as the renewal can wait."""
        end = time.monotonic() + self._settings.queue.lease_s / 6
        while self._reap_batch():
            if time.monotonic() > end or self._stop.wait(REAP_PAUSE_S):
                break

    def _reap_batch(self) -> bool:
        reaped = read_reaped(run_sync(self._client, reap_call(self._settings)))
        if not reaped.worker:
            return False
        log.warning("worker reaped", dead=reaped.worker, returned=len(reaped.returned), ended=len(reaped.ended))
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
        while not self._stop.wait(min(REAP_EVERY_S, lease_s * REAP_SHARE)):
            if (now := time.monotonic()) >= renew_at_s:
                if not self._done(self.renew):
                    continue  # tried again at the next look; nobody reaps who could not renew
                renew_at_s = now + renew_every_s
            self._done(self.reap)

    @staticmethod
    def _done(step: Callable[[], None]) -> bool:
        try:
            step()
        except (RedisError, OSError) as error:
            log.warning("leases not renewed", error=str(error))
        else:
            return True
        return False
