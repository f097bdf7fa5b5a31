"""Renew the leases of a worker, on a thread of its own: a busy event loop must not cost it its jobs.

The same thread reaps: it takes the jobs of workers whose lease ran out. After a time without Redis it leaves the
others one lease to renew theirs first, because then everybody's lease has run out at once.
"""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import redis
import structlog
from redis.exceptions import NoScriptError, RedisError

from dispatcher.contract import Lane
from dispatcher.ids import id_bytes, read_id
from dispatcher.queue.commands import keep
from dispatcher.queue.connection import connect_sync
from dispatcher.queue.plan import lists_of
from dispatcher.queue.scripts import digest, source
from dispatcher.sections import Settings

log = structlog.get_logger()
VERSION = "bitladder"
# Jobs one pass of the reaper moves; a dead worker with more takes several passes.
REAP_BATCH = 256
# How soon after a lease ran out somebody looks for it.
REAP_EVERY_S = 1.0
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
    ) -> None:
        self._client = connect_sync(settings.redis)
        self._settings, self._model, self._tier, self._worker = settings, model, tier, worker
        ladder = settings.model(model).ladder
        self.queues = ",".join(name for lane in Lane for name in lists_of(model, ladder, tier, lane, tier))
        self._held, self._drop = held, drop
        self._unknown: dict[bytes, float] = {}  # held in Redis, not here: id -> first seen (monotonic)
        self._strays: list[bytes] = []
        self.is_ready = False
        self._stop = threading.Event()
        self._renewing = threading.Lock()  # the pump renews too, when its readiness changes
        self._renewed_s = time.monotonic()
        self._no_reaping_before_s = 0.0
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop renewing and leave RQ's lists."""
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(RedisError, OSError):
            self._call("retire", self._keys(), [self._worker, self.queues])
        self._client.close()

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
            self._settings.queue.max_attempts,
            keep(self._settings),
            len(strays),
            *strays,
            *held,
        ]
        _, lost, cancelled, unknown = self._call("extend", self._keys(), args)
        # A claim's answer may still be on its way; after a third of a lease nobody waits for it any more.
        now = time.monotonic()
        self._unknown = {job: self._unknown.get(job, now) for job in unknown}
        self._strays = [job for job, since in self._unknown.items() if now - since > self._settings.queue.lease_s / 3]
        if time.monotonic() - self._renewed_s > self._settings.queue.lease_s / 2:
            self._no_reaping_before_s = time.monotonic() + self._settings.queue.lease_s
        self._renewed_s = time.monotonic()
        if lost or cancelled:
            self._drop([read_id(job) for job in lost], [read_id(job) for job in cancelled])

    def reap(self) -> None:
        """Take the jobs of workers whose lease ran out, for as long as the renewal can wait."""
        end = time.monotonic() + self._settings.queue.lease_s / 6
        while time.monotonic() >= self._no_reaping_before_s and self._reap_batch():
            if time.monotonic() > end or self._stop.wait(REAP_PAUSE_S):
                break

    def _reap_batch(self) -> bool:
        queue = self._settings.queue
        args: list[str | int] = [REAP_BATCH, queue.max_attempts, keep(self._settings)]
        dead, returned, ended = self._call("reap", ["bl:workers", "rq:workers"], args)
        if dead:
            log.warning("worker reaped", dead=dead.decode(), returned=len(returned), ended=len(ended))
        return bool(dead)

    def _run(self) -> None:
        # A third of the lease: two renewals may be missed.
        renew_every_s = self._settings.queue.lease_s / 3
        next_s = time.monotonic() + renew_every_s
        while not self._stop.wait(min(renew_every_s, REAP_EVERY_S)):
            if time.monotonic() >= next_s:
                next_s = time.monotonic() + renew_every_s
                self._try(self.renew)
            self._try(self.reap)

    @staticmethod
    def _try(step: Callable[[], None]) -> None:
        try:
            step()
        except (RedisError, OSError) as error:
            log.warning("leases not renewed", error=str(error))
        except Exception:
            # Without this thread the worker would lose every job it has.
            log.exception("lease thread broke")

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
