"""What all handlers of one intake process share: settings, queue, inbox, metrics, background tasks."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from starlette.requests import Request as HttpRequest

from bitladder.contract import JobView, Outcome, State, Submission
from bitladder.ids import in_url
from bitladder.overview.history_store import HistoryStore
from bitladder.overview.overview_reader import OverviewReader
from bitladder.process.supervision import Background, in_thread
from bitladder.queue.checks.rights import INTAKE
from bitladder.queue.checks.server_check import check_server
from bitladder.queue.checks.server_watch import ServerWatch
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.upkeep.live_settings import LiveStore
from bitladder.queue.upkeep.sweeping import sweep_for_ever
from bitladder.queue.waiting.outcomes import OutcomeInbox
from bitladder.settings.live import (
    POLL_INTERVAL_S,
    LiveSettings,
    ReleaseWatch,
    as_far_as_live,
    release_version,
    take_changes,
)
from bitladder.settings.log_section import TracingSettings
from bitladder.settings.sections import Settings
from dispatcher.admission.admission import Admission
from dispatcher.admission.budgets import Budgets
from dispatcher.admission.bundles import SubmissionBundles
from dispatcher.admission.expected_wait import ExpectedWaits
from dispatcher.auth import Authenticator
from dispatcher.capture.capture import Capture
from dispatcher.http.closing import Closing
from dispatcher.metrics.intake_metrics import AdmissionMetrics, IntakeMetrics, WebhookMetrics, withdrawals_gauge
from dispatcher.overview.history_writer import HistoryWriter
from dispatcher.overview.sampler import OverviewSampler
from dispatcher.webhooks.hooks import Webhooks
from dispatcher.withdrawals import Withdrawals

if TYPE_CHECKING:
    from dispatcher.request_traces import RequestTraces

# Job records read at once, a connection each.
_MAX_READING = 64


class IntakeState:
    """The state of one intake process."""

    def __init__(self, live: LiveSettings, queue: JobQueue, closing: Closing, *, is_key_required: bool) -> None:
        self.live = live
        self.queue = queue
        self.queues: Mapping[str, JobQueue] = {}  # of all Redis by name, where there are several
        self.closing = closing
        self.authenticator = Authenticator(live, queue.client, is_required=is_key_required)
        self.background = Background()
        self.server = ServerWatch(lambda: check_server(queue.client, live.current.redis, INTAKE))
        self.inbox = OutcomeInbox(live.current.redis, queue)
        self.metrics = IntakeMetrics()
        metrics = AdmissionMetrics(self.metrics.registry)
        self.admission = Admission(live, queue.client, metrics, lambda: self.inbox.is_connected)
        self.has_worker = self.admission.has_worker
        self.waits = ExpectedWaits(self.admission, metrics)
        self.capture = Capture(lambda: live.current.capture, self.metrics)
        self._capturing: asyncio.Task[None] | None = None
        self.withdrawals = Withdrawals(queue, self.inbox, withdrawals_gauge(self.metrics.registry))
        self.webhooks = Webhooks(queue, WebhookMetrics(self.metrics.registry))
        self.bundles, self.budgets = SubmissionBundles(queue), Budgets(queue)
        self._reading = asyncio.Semaphore(_MAX_READING)
        self.overview = OverviewSampler(OverviewReader(queue, self.waits.of_lane, lambda: self.refused_change).read)
        self.overview_of_all: OverviewSampler | None = None  # where there are several Redis
        self.history = HistoryStore(queue, secrets.token_hex(8))
        self.refused_change = ""  # what is wrong with a change of the settings, while what was before stays
        self.watch, self.live_store = ReleaseWatch.of(live.current), LiveStore(queue)
        self.traces = _open_traces(live.current.tracing)

    async def start(self, watch: ReleaseWatch | None) -> None:
        """Start the background tasks, and wait a moment for Redis; `watch` brings published releases."""
        self.watch = watch or self.watch
        self.inbox.start(self.background)
        await self.inbox.ready(self.settings.redis.timeout_s)
        await self._take_changes()
        self.background.start("redis watch", self.server.run)
        self.background.start("admission", self.admission.run)
        self.background.start("costs", self.budgets.run)
        self.background.start("withdrawals", self.withdrawals.work_for_ever)
        self.webhooks.start(self.background)
        self.live.subscribe(lambda _: self._after_change)
        self._after_change()
        self.background.start("sweep", lambda: sweep_for_ever(self.queue, list(self.settings.models)))
        self.background.start("history", HistoryWriter(self.history, self.overview.take).run)
        self.background.start("release", self._follow)

    async def aclose(self) -> None:
        await self.withdrawals.drain()
        await self.overview.aclose()
        if self.traces:
            await asyncio.to_thread(self.traces.close)
        await self.background.stop()
        await self.webhooks.aclose()
        self.capture.stop()
        await self.inbox.aclose()
        await self.queue.aclose()

    @property
    def settings(self) -> Settings:
        """The settings as they are now."""
        return self.live.current

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(POLL_INTERVAL_S)
            await self._take_changes()

    async def _take_changes(self) -> None:
        """Take what has changed in files and live settings."""
        await take_changes(self.watch, self.live, self.live_store.read)
        self.metrics.refused_releases.set(self.watch.refused)
        self.metrics.live_revision.set(self.watch.live.revision)
        self.refused_change = self.watch.problem

    def check_change(self, changed: Settings) -> None:
        """Raise ConfigError where this process could not take these settings."""
        self.live.prepared(as_far_as_live(self.settings, self.watch.narrow(changed)))

    def _after_change(self) -> None:
        self.metrics.release_version.set(release_version(self.settings))
        if self.capture.is_needed and self._capturing is None:
            self._capturing = self.background.start("capture", lambda: in_thread("capture", self.capture.run))

    def job_url(self, job_id: str) -> str:
        """Return where clients find a job, as they see this intake from before a proxy."""
        return f"{self.settings.intake.root_path}/v1/jobs/{in_url(job_id)}"

    def stream_url(self, job_id: str) -> str:
        """Return where clients read a job's tokens again."""
        return f"{self.job_url(job_id)}/stream"

    def tier_of(self, job: Submission, outcome: Outcome) -> str:
        """Return the tier that served a job; '' where none of the job's model did, whatever the outcome says."""
        tier = outcome.tier or ""
        return tier if tier in self.settings.model(job.model).ladder else ""

    async def view(self, job_id: str) -> JobView | None:
        """Read one job; at most MAX_READING are read at once. One that waits past its deadline ends here."""
        async with self._reading:
            view = await self.queue.view(job_id)
            is_late = view and view.state is State.QUEUED and view.deadline_ms and view.deadline_ms < time.time() * 1000
            # By the server's clock it may have time, or be over.
            return await self.queue.view(job_id) if is_late and await self.queue.expire(job_id) else view


def _open_traces(settings: TracingSettings) -> RequestTraces | None:
    if not settings.enabled:
        return None
    from dispatcher.request_traces import RequestTraces  # it needs the extra

    return RequestTraces(settings)


def intake_state(request: HttpRequest) -> IntakeState:
    """Return the state of the intake that serves a request."""
    state: IntakeState = request.app.state.intake
    return state
