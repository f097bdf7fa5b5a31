"""A job's life against a model: random steps on a real Valkey, everything stored compared after each one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterator
from typing import Any, ClassVar, TypeVar

import msgspec
import pytest
import redis
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from bitladder.contract import Chunk, Claimed, Emitted, Outcome, Request, State, Submission
from bitladder.decision import Decision
from bitladder.errors import ConflictError, QueueFullError, QuotaError
from bitladder.ids import id_bytes, read_id
from bitladder.queue.calls.end import Finished, RequeueReason
from bitladder.queue.calls.leases import WorkerEntry, extend_call, read_reaped, read_renewed, reap_call, retire_call
from bitladder.queue.claim_plan import claim_plan
from bitladder.queue.dead_letters import Choice, DeadLetters
from bitladder.queue.job_queue import JobQueue
from bitladder.queue.sending.blocking import BlockingScripts
from bitladder.queue.server.connection import connect
from bitladder.queue_name import DEFAULT_TENANT, Lane, QueueName
from bitladder.settings.sections import Settings
from tests.bitladder.queue.job_model import LADDER, MODEL, Dump, Job, Model, check
from tests.bitladder.queue.moves import moves
from tests.conftest import make_settings
from tests.fuzzing import SEED, report, sized

MAX_ATTEMPTS = 3
MAX_DEPTH = 6
REASONS = tuple(reason for reason in RequeueReason if reason is not RequeueReason.REAPED)
# Names with their tiers: two of a tier, so that one can take what the other lost.
HIGH, LOW = 3, 1
WORKERS = {"a": "int4", "b": "int4", "c": "int8", "d": "fp8"}
# Of the tenant whose jobs are counted: where it is sent to the batch lane, and where it is refused.
FAIR, QUOTA = 4, 8

# Moves that the scripts say they make, in RQ's words (an expired job is a failed one to it).
RQ_STATES = {"running": "started", "cancelled": "canceled", "expired": "failed"}
MOVES = {tuple(RQ_STATES.get(state, state) for state in (move.before, move.after)) for move in moves()}
UNMOVED = {(state, state) for move in MOVES for state in move}

T = TypeVar("T")
picks = st.integers(0, 63)
workers = st.sampled_from(sorted(WORKERS))


class JobLife(RuleBasedStateMachine):
    """The rules: what intakes, clients, workers and reapers do, at any time and in any order."""

    runner: ClassVar[asyncio.Runner]
    settings: ClassVar[Settings]
    queue: ClassVar[JobQueue]
    scripts: ClassVar[BlockingScripts]
    store: ClassVar[redis.Redis]
    steps: ClassVar[Counter[str]] = Counter()  # and what became of jobs, over all runs

    def __init__(self) -> None:
        super().__init__()
        self.store.flushdb()
        self.model = Model()
        self.claims: list[tuple[str, Claimed]] = []  # every answer that a worker ever had
        self.count = 0
        self.states: dict[str, str] = {}

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def pick(self, number: int, among: list[T]) -> T:
        return among[number % len(among)]

    @invariant()
    def what_is_stored_is_what_the_model_says(self) -> None:
        dump = Dump(self.store)
        check(self.model, dump)
        states = {job_id: dump.hash(f"rq:job:{job_id}")["status"] for job_id in dump.of("rq:job:")}
        assert {(self.states.get(job_id, "(none)"), state) for job_id, state in states.items()} - UNMOVED <= MOVES
        self.states |= states
        self.steps["steps"] += 1

    def teardown(self) -> None:
        self.steps["runs"] += 1
        self.steps.update(job.status for job in self.model.jobs.values())

    @rule(
        tier=st.sampled_from(LADDER),
        lane=st.sampled_from(Lane),
        ceiling=st.sampled_from((None, *LADDER)),
        is_special=st.sampled_from((False, False, True)),
        deadline=st.booleans(),
        key=st.sampled_from(("", "", "k1", "k2")),
        fingerprint=st.sampled_from(("f1", "f1", "f2")),
        copies=st.integers(1, 3),
        tenant=st.sampled_from(("", "", "t", "u")),
        again=st.booleans(),
    )
    def submit(
        self,
        tier: str,
        lane: Lane,
        ceiling: str | None,
        is_special: bool,
        deadline: bool,
        key: str,
        fingerprint: str,
        copies: int,
        tenant: str,
        again: bool,
    ) -> None:
        if ceiling and LADDER.index(ceiling) < LADDER.index(tier):
            ceiling = tier
        if ceiling == LADDER[-1]:
            ceiling = None
        name = QueueName(MODEL, tier, lane, ceiling)
        if is_special:  # a gap above the lowest tier, consent to lower ones from the others
            serving = (LADDER[0], LADDER[-1]) if tier == LADDER[0] else LADDER
            name = QueueName.of(MODEL, tier, lane, serving, LADDER)
        jobs = []
        for _ in range(copies):
            self.count += 1
            request = Request(
                body=msgspec.Raw(b'{"prompt":"x"}'),
                decision=Decision(floor=tier),
                ceiling=ceiling,
                tenant=tenant or DEFAULT_TENANT,
            )
            jobs.append(
                Submission(
                    job_id=f"j{self.count}",
                    model=MODEL,
                    queue=str(name),
                    request=request,
                    deadline_ms=600_000 if deadline else None,
                    idempotency_key=key,
                    fingerprint=fingerprint if key else "",
                    max_of_tenant=QUOTA if tenant else 0,
                )
            )
        for answers in [self.do(self.queue.submit(jobs)) for _ in range(2 if again else 1)]:
            for job, answer in zip(jobs, answers, strict=True):
                self._judge_submitted(job, answer)

    def _judge_submitted(self, job: Submission, answer: object) -> None:
        first = self.model.owner_of(job.idempotency_key)
        if first and first.fingerprint != job.fingerprint:
            assert isinstance(answer, ConflictError)
        elif first or job.job_id in self.model.jobs:
            assert answer == (first.job_id if first else job.job_id)
        elif not self._is_refused(job, job.queue, answer):
            assert answer == job.job_id

    def _is_refused(self, job: Submission, queue: str, answer: object) -> bool:
        name = QueueName.parse(queue)
        tenant = job.request.tenant if job.max_of_tenant else ""
        mine = len(self.model.of_tenant(tenant)) if tenant else 0
        if self.model.depth(queue) >= MAX_DEPTH:
            assert isinstance(answer, QueueFullError)
            assert not isinstance(answer, QuotaError)
        elif mine >= QUOTA:
            assert isinstance(answer, QuotaError)
        elif mine >= FAIR and name.lane != Lane.BATCH:
            return self._is_refused(job, str(msgspec.structs.replace(name, lane=Lane.BATCH)), answer)
        else:
            key, fingerprint = job.idempotency_key, job.fingerprint
            self.model.push(Job(job_id=job.job_id, queue=queue, key=key, fingerprint=fingerprint, tenant=tenant))
            return False
        return True

    @rule(worker=workers, slots=st.integers(1, 5), is_lost=st.sampled_from((False, False, False, True)))
    def claim(self, worker: str, slots: int, is_lost: bool) -> None:
        tier = WORKERS[worker]
        plan = claim_plan(self.settings, MODEL, tier)
        free = self._free_to_escalate(tier)
        claims = self.do(self.queue.claim(worker, MODEL, tier, plan, slots))
        claimed = claims.jobs
        assert len(claimed) <= slots
        left = {name: list(ids) for name, ids in Dump(self.store).of("rq:queue:").items()}
        popped = self._popped(left)
        taken = [job.job_id for job in claimed]
        waiting = [self.model.jobs[job_id] for job_id in popped if self.model.jobs[job_id].status == "queued"]
        assert sorted(taken) == sorted(job.job_id for job in waiting if not job.is_over)
        gone = [job_id for job_id in popped if not self.model.jobs[job_id].is_stored]
        assert sorted(refused.job_id for refused in claims.unfit) == sorted(gone)
        assert claims.expired == sum(job.is_over for job in waiting)
        for job in waiting:
            job.status = "failed" if job.is_over else "started"
        for answer in claimed:
            self._judge_claimed(worker, answer, free)
        if len(claimed) < slots:
            self._judge_idle(tier)
        self.model.unbegun.setdefault(worker, set()).update(taken)
        if not is_lost:
            self.claims += [(worker, job) for job in claimed]

    def _popped(self, left: dict[str, list[str]]) -> list[str]:
        """Take from the model's lists what left the real ones: only ever from the front."""
        popped = []
        for name, ids in self.model.lists.items():
            gone = len(ids) - len(left.get(name, []))
            assert gone >= 0
            assert ids[gone:] == left.get(name, [])
            popped += ids[:gone]
            del ids[:gone]
        return popped

    def _free_to_escalate(self, tier: str) -> set[str]:
        """Return the other tiers and lanes whose jobs may all be taken now: the tier is dead, or the lane is long."""
        free, dump = set(), Dump(self.store)
        for lower in LADDER:
            for lane in Lane:
                name = f"{MODEL}:{lower}:{lane}"
                depth = sum(self.model.depth(its) for its in self.model.queues() if f"{its}:".startswith(f"{name}:"))
                is_long = lane != Lane.BATCH and (depth > HIGH or f"bl:overflow:{name}" in dump.values)
                if is_long or not self._live(lower):
                    free.add(name)
        return free

    def _judge_claimed(self, worker: str, answer: Claimed, free: set[str]) -> None:
        job, tier = self.model.jobs[answer.job_id], WORKERS[worker]
        assert answer.fence > job.fence
        job.worker, job.uncharged, job.fence = worker, answer.fence - job.attempts - 1, answer.fence
        lane = f"{MODEL}:{answer.tier}:{answer.lane}"
        idle = answer.lane == Lane.BATCH and self._is_idle(tier)
        late = job.is_late and LADDER.index(answer.tier) < LADDER.index(tier)
        assert answer.tier == tier or lane in free or late or idle, "it left its tier without need"
        assert (answer.attempt, answer.queue) == (job.attempts, job.queue)
        assert answer.attempt <= MAX_ATTEMPTS
        assert tier in answer.serving(LADDER)

    def _is_idle(self, tier: str) -> bool:
        return not any(self.model.depth(name) for name in self.model.queues() if QueueName.parse(name).tier == tier)

    def _judge_idle(self, tier: str) -> None:
        """Expect that a free slot left nothing of its own tier, and of a dead one below nothing that it may take."""
        dead = [lower for lower in LADDER[: LADDER.index(tier)] if not self._live(lower)]
        for name in self.model.queues():
            if QueueName.parse(name).tier in (*dead, tier) and tier in QueueName.parse(name).serving(LADDER):
                assert self.model.depth(name) == 0, name

    def _live(self, tier: str) -> int:
        return int(self.store.zcount(f"bl:live:{MODEL}:{tier}", "(0", "+inf"))

    @precondition(lambda self: self.claims)
    @rule(
        number=picks,
        state=st.sampled_from((State.FINISHED, State.FINISHED, State.FAILED)),
        is_dead_letter=st.booleans(),
        again=st.booleans(),
    )
    def finish(self, number: int, state: State, is_dead_letter: bool, again: bool) -> None:
        """Any answer that a worker ever had may come late, or twice."""
        worker, claimed = self.pick(number, self.claims[::-1])
        self.count += 1
        outcome = Outcome(state=state, status=200, request_id=f"end {self.count}")
        is_dead_letter = is_dead_letter and state is State.FAILED
        end = Finished(job=claimed, outcome=outcome, is_dead_letter=is_dead_letter)
        has_ended = False  # by this very answer: what is handed in again is accepted again
        for accepted in [self.do(self.queue.finish(worker, [end])) for _ in range(2 if again else 1)]:
            job = self.model.jobs[claimed.job_id]
            is_mine = (job.worker, job.fence) == (worker, claimed.fence) and job.status in ("queued", "started")
            assert accepted == [is_mine or has_ended]
            if is_mine:
                has_ended = True
                job.uncharged -= job.status == "queued" and job.spared == job.fence
                job.status = state.value
                self.model.dead |= {job.job_id} if is_dead_letter else set()

    @precondition(lambda self: self.claims)
    @rule(number=picks, again=st.booleans())
    def begin(self, number: int, again: bool) -> None:
        """Say that the engine of a worker has begun a job, perhaps late."""
        worker, claimed = self.pick(number, self.claims[::-1])
        for _ in range(2 if again else 1):
            self.do(self.queue.mark_begun(worker, [claimed.job_id]))
        self.model.unbegun.setdefault(worker, set()).discard(claimed.job_id)

    @precondition(lambda self: self.claims)
    @rule(number=picks, reason=st.sampled_from(REASONS), escalates=st.booleans(), again=st.booleans())
    def requeue(self, number: int, reason: RequeueReason, escalates: bool, again: bool) -> None:
        worker, claimed = self.pick(number, self.claims[::-1])
        target = self._one_up(worker, claimed) if escalates else claimed.queue
        last = Outcome(state=State.FAILED, status=502, code="engine_fault", error="broke")
        for _ in range(2 if again else 1):
            result = self.do(self.queue.requeue(worker, claimed, target, reason=reason, last=last))
            job = self.model.jobs[claimed.job_id]
            if job.status == "started" and job.fence == claimed.fence:
                assert result == self.model.requeue_job(job, target, reason, MAX_ATTEMPTS)
            else:
                assert result == "lost"

    def _one_up(self, worker: str, claimed: Claimed) -> str:
        lowest = max(LADDER.index(WORKERS[worker]) + 1, LADDER.index(claimed.tier))
        above = tuple(tier for tier in claimed.serving(LADDER) if LADDER.index(tier) >= lowest)
        return str(QueueName.of(MODEL, above[0], claimed.lane, above, LADDER)) if above else claimed.queue

    @precondition(lambda self: self.claims)
    @rule(number=picks, chunk=st.integers(1, 4), again=st.booleans())
    def emit(self, number: int, chunk: int, again: bool) -> None:
        worker, claimed = self.pick(number, self.claims[::-1])
        job, name = self.model.jobs[claimed.job_id], f"{claimed.fence}-{chunk}"
        is_mine = job.status == "started" and job.fence == claimed.fence
        for _ in range(2 if again else 1):
            sent = [(claimed.job_id, Chunk(fence=claimed.fence, number=chunk, data=b"x"))]
            assert self.do(self.queue.emit(worker, sent)) == [Emitted.STORED if is_mine else Emitted.LOST]
        if is_mine:
            fence, _, last = job.chunks[-1].partition("-") if job.chunks else ("0", "", "0")
            if (int(fence), int(last)) < (claimed.fence, chunk):
                job.chunks = [name] if chunk == 1 else [*job.chunks, name]

    @precondition(lambda self: self.model.jobs)
    @rule(number=picks, again=st.booleans())
    def cancel(self, number: int, again: bool) -> None:
        job = self.pick(number, list(self.model.jobs.values())[::-1])
        for _ in range(2 if again else 1):
            word = self.do(self.queue.cancel(job.job_id))
            words = {"queued": "cancelled", "started": "requested"}
            assert word == (words.get(job.status, "over") if job.is_stored else "missing")
            if job.status == "queued":
                job.status = "canceled"
            elif job.status == "started":
                job.cancel = True

    @precondition(lambda self: self.model.jobs)
    @rule(number=picks)
    def let_a_deadline_pass(self, number: int) -> None:
        waiting = [job for job in self.model.jobs.values() if job.status == "queued"]
        if waiting:
            job = self.pick(number, waiting)
            enqueued, _, *place = self._wait_of(job)
            self.store.hset(f"rq:job:{job.job_id}", "wait", " ".join((enqueued, "1", *place)))
            job.is_over, job.is_late = True, False

    @precondition(lambda self: self.model.jobs)
    @rule(number=picks)
    def let_a_job_wait_long(self, number: int) -> None:
        waiting = [job for job in self.model.jobs.values() if job.status == "queued" and not job.is_over]
        if waiting:
            job = self.pick(number, waiting)
            _, _, *place = self._wait_of(job)
            now_ms = self.store.time()[0] * 1000
            self.store.hset(
                f"rq:job:{job.job_id}", "wait", " ".join((str(now_ms - 600_000), str(now_ms + 60_000), *place))
            )
            job.is_late = True

    @precondition(lambda self: self.model.jobs)
    @rule(number=picks)
    def let_an_outcome_expire(self, number: int) -> None:
        ended = [job for job in self.model.jobs.values() if job.outcome and job.is_stored]
        if ended:
            job = self.pick(number, ended)
            self.store.delete(f"rq:job:{job.job_id}", f"bl:stream:{job.job_id}")
            job.is_stored = False

    def _wait_of(self, job: Job) -> list[str]:
        raw: Any = self.store.hget(f"rq:job:{job.job_id}", "wait")
        return str(raw.decode()).split(" ")

    @rule(worker=workers, is_ready=st.booleans(), names_strays=st.booleans())
    def renew(self, worker: str, is_ready: bool, names_strays: bool) -> None:
        """Renew a lease; a worker may find out that it holds jobs whose claim it never heard of."""
        known = {job.job_id for name, job in self.claims if name == worker and self._holds(worker, job)}
        strays = sorted(self.model.held(worker) - known) if names_strays else []
        stale = [
            job.job_id for name, job in self.claims if name == worker and job.job_id not in self.model.held(worker)
        ]
        lost, cancelled, unknown = self._extend(worker, is_ready, strays, [*known, *stale])
        assert set(lost) == set(stale)
        for job_id in strays:
            job = self.model.jobs[job_id]
            self.model.requeue_job(job, job.queue, RequeueReason.UNCHARGED, MAX_ATTEMPTS)
        assert set(unknown) == self.model.held(worker) - known
        assert set(cancelled) <= {job.job_id for job in self.model.jobs.values() if job.cancel}

    def _holds(self, worker: str, claimed: Claimed) -> bool:
        job = self.model.jobs[claimed.job_id]
        return job.status == "started" and (job.worker, job.fence) == (worker, claimed.fence)

    def _extend(self, worker: str, is_ready: bool, strays: list[str], known: list[str]) -> list[list[str]]:
        named = [(id_bytes(job_id), b"%d" % self.model.jobs[job_id].fence) for job_id in strays]
        call = extend_call(self.settings, self._entry(worker), is_ready=is_ready, strays=named, held=known)
        renewed = read_renewed(self.scripts.call(call))
        return [renewed.lost, renewed.cancelled, [read_id(job_id) for job_id, _ in renewed.unknown]]

    @staticmethod
    def _entry(worker: str) -> WorkerEntry:
        return WorkerEntry(name=worker, model=MODEL, tier=WORKERS[worker])

    @rule(worker=workers, again=st.booleans())
    def lose_a_lease(self, worker: str, again: bool) -> None:
        """Let the lease of a worker run out and reap it; the worker itself may go on and knows nothing of it."""
        if self.store.zscore("bl:workers", worker) is None:
            return
        self.store.zadd("bl:workers", {worker: 1})
        ends = self.model.held(worker)
        for passes in range(2 if again else 1):
            reaped = read_reaped(self.scripts.call(reap_call(self.settings)))
            assert reaped.worker == ("" if passes else worker)
            results = dict.fromkeys(reaped.returned, "returned") | dict.fromkeys(reaped.ended, "ended")
            assert set(results) == (set() if passes else ends)
            unbegun = self.model.unbegun.pop(worker, set())
            for job_id in [*reaped.returned, *reaped.ended]:
                job = self.model.jobs[job_id]
                reason = RequeueReason.UNBEGUN if job_id in unbegun else RequeueReason.REAPED
                assert results[job_id] == self.model.requeue_job(job, job.queue, reason, MAX_ATTEMPTS)

    @rule(worker=workers, most=st.integers(1, 4))
    def retire(self, worker: str, most: int) -> None:
        """Let a worker leave; what it still holds goes back, in an order that nobody chose."""
        its = self.model.held(worker)
        call = retire_call(self.settings, self._entry(worker), most)
        left = len(its)
        while not self.scripts.call(call):
            left -= most
            assert left > 0
        where = {job_id: place for ids in Dump(self.store).of("rq:queue:").values() for place, job_id in enumerate(ids)}
        for job_id in sorted(its, key=lambda job_id: -where.get(job_id, 0)):
            job = self.model.jobs[job_id]
            self.model.requeue_job(job, job.queue, RequeueReason.UNCHARGED, MAX_ATTEMPTS)
        self.model.unbegun.pop(worker, None)

    @precondition(lambda self: self.model.dead)
    @rule(number=picks, drops=st.booleans(), again=st.booleans())
    def leave_dead_letters(self, number: int, drops: bool, again: bool) -> None:
        job = self.model.jobs[self.pick(number, sorted(self.model.dead))]
        dead_letters = DeadLetters(self.queue)
        chosen = self.do(dead_letters.jobs(Choice(ids=[job.job_id])))
        for passes in range(2 if again else 1):
            done = self.do(dead_letters.drop(chosen) if drops else dead_letters.release(chosen))
            assert done == ([job.job_id] if not passes and (drops or job.is_stored) else [])
        if drops:
            self.model.dead.discard(job.job_id)
            job.losses = 0  # with the prompt goes what engines said about it
        elif job.is_stored:
            self.model.release(job)

    @precondition(lambda self: self.model.jobs)
    @rule(number=picks)
    def look(self, number: int) -> None:
        """Compare what a client sees with what the model says."""
        job = self.pick(number, list(self.model.jobs.values()))
        view = self.do(self.queue.view(job.job_id))
        if not job.is_stored:
            assert view is None
            return
        assert view is not None
        assert view.attempts == job.attempts
        assert view.state.is_terminal == (job.outcome is not None)
        assert view.position == (self.model.place(job) if job.status == "queued" else None)


@pytest.fixture
def machine(redis_url: str, store: redis.Redis) -> Iterator[type[JobLife]]:
    marks = {
        f"models__{MODEL}__tiers__{tier}__{key}": value
        for tier in LADDER
        for key, value in (("high", HIGH), ("low", LOW))
    }
    JobLife.settings = make_settings(
        redis_url, queue__max_attempts=MAX_ATTEMPTS, queue__max_depth=MAX_DEPTH, queue__fair_depth=FAIR, **marks
    )
    JobLife.store = store
    with asyncio.Runner() as JobLife.runner:
        client = connect(JobLife.settings.redis)
        JobLife.queue = JobQueue(client, JobLife.settings)
        JobLife.scripts = BlockingScripts(JobLife.settings)
        yield JobLife
        JobLife.scripts.close()
        JobLife.runner.run(client.aclose())


@pytest.mark.fuzz
def test_a_job_lives_as_the_model_says(machine: type[JobLife]) -> None:
    run_state_machine_as_test(
        seed(SEED)(machine),
        settings=settings(
            max_examples=sized(40, 400),
            stateful_step_count=sized(100, 200),
            report_multiple_bugs=False,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    steps = machine.steps
    report("jobs", steps, f"{steps['runs']} lives of a queue, {steps['steps']} steps, jobs: {dict(steps)}")
