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
from typing import Any

import redis
import structlog
from redis.exceptions import NoScriptError, RedisError

from bitladder.contract import Lane
from bitladder.ids import id_bytes, read_id
from bitladder.queue.calls import keep
from bitladder.queue.plan import lists_of
from bitladder.queue.run_script import digest, source
from bitladder.queue.server.connection import connect_sync
from bitladder.settings.sections import Settings
from workers.clock import ServerClock

log = structlog.get_logger()
VERSION = "bitladder"
# Jobs one pass of the reaper moves; a dead worker with more takes several passes.
REAP_BATCH = 256
# How soon after a lease ran out somebody looks for it, and at most this share of a lease. The scripts take three times
# as long without anybody's look for an outage.
REAP_EVERY_S, REAP_SHARE = 1.0, 1 / 9
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
        self._settings, self._model, self._tier, self._worker = settings, model, tier, worker
        ladder = settings.model(model).ladder
        self.queues = ",".join(name for lane in Lane for name in lists_of(model, ladder, tier, lane, tier))
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
        """Stop renewing, leave RQ's lists, and give back what the worker holds without knowing it."""
        self._stop.set()
        self._ended.wait()
        most = self._settings.queue.max_attempts
        args: list[str | int] = [self._worker, self.queues, REAP_BATCH, most, keep(self._settings)]
        with contextlib.suppress(RedisError, OSError):
            while not self._call("retire", self._keys(), args):
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
        lease_ms = int(self._settings.queue.lease_s * 1000)
        held = list(self._held())
        found = {id_bytes(job_id) for job_id in held}  # the answer to their claim was only late
        strays = [job for job in self._strays if job not in found]
        args: list[str | int | bytes] = [
            self._worker,
            lease_ms,
            int(self.is_ready),
            self._model,
            self._tier,
            self.queues,
            os.getpid(),
            platform.node(),
            VERSION,
            self._tally(),
            self._settings.queue.max_attempts,
            keep(self._settings),
            len(strays),
            *strays,
            *held,
        ]
        asked_s = time.monotonic()
        now_ms, lost, cancelled, unknown = self._call("extend", self._keys(), args)
        self.clock.heard(int(now_ms), asked_s)
        # A claim's answer may still be on its way: that of the one under way, or of one that was given up a moment ago.
        now = time.monotonic()
        self._unknown = {job: self._unknown.get(job, now) for job in unknown}
        latest = min(now - self._settings.queue.lease_s / 3, self._claiming_since_s)
        self._strays = [job for job, since in self._unknown.items() if since < latest]
        if lost or cancelled:
            self._drop([read_id(job) for job in lost], [read_id(job) for job in cancelled])

    def reap(self) -> None:
        """Take the jobs of workers whose lease ran out, for as long as the renewal can wait."""
        end = time.monotonic() + self._settings.queue.lease_s / 6
        while self._reap_batch():
            if time.monotonic() > end or self._stop.wait(REAP_PAUSE_S):
                break

    def _reap_batch(self) -> bool:
        queue = self._settings.queue
        args: list[str | int] = [REAP_BATCH, queue.max_attempts, keep(self._settings), int(queue.lease_s * 1000)]
        dead, returned, ended = self._call("reap", ["bl:workers", "rq:workers"], args)
        if dead:
            log.warning("worker reaped", dead=dead.decode(), returned=len(returned), ended=len(ended))
        return bool(dead)

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
