"""tests/chaos/checks/outcomes.py and executions.py: checks that find nothing must be shown to find what is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.checks.evidence import Evidence, Execution, joined
from tests.chaos.checks.executions import wrong_runs
from tests.chaos.checks.outcomes import wrong_outcomes
from tests.chaos.checks.timeline import EVERYBODY, Loss, Timeline, Trouble
from tests.chaos.system.services import Life
from tests.chaos.traffic.history import History, Lost, Record, Seen, Try
from tests.chaos.traffic.orders import Delivery, Order
from workers.engines.execution_log import Event, How, Line

LEASE_S = 15.0
# Claims of 100.9 s and 129.9 s: a fence is a time.
FIRST, SECOND = 10_090_000, 12_990_000
ORDER = Order(
    number=7,
    delivery=Delivery.JOBS,
    body={"model": "smollm2", "prompt": "n0000007 aa", "max_tokens": 3},
    headers={"Idempotency-Key": "key-7", "X-Min-Tier": "int4", "X-Max-Tier": "int8"},
)
DONE = Seen(by="redis", state="finished", text="n0000007 aa n0000007", tier="int4", attempts=1, at_s=102.0)
RECORD = Record(
    job_id="a",
    status="finished",
    outcome=DONE,
    fence=FIRST,
    uncharged=FIRST - 1,
    mark="n0000007",
    worker="first",
    created_s=100.0,
    ended_s=102.0,
)
RUN = Execution(job_id="a", fence=FIRST, tier="int4", pid=1, begin_s=101.0, end_s=102.0, how=How.ANSWERED)
AGAIN = replace(RUN, fence=SECOND, pid=2, begin_s=130.0, end_s=131.0)
LOST = Lost(at_s=120.0, worker="first", fence=FIRST, code="worker_lost", attempts=1)
TWICE = replace(
    RECORD, fence=SECOND, uncharged=SECOND - 2, ended_s=131.0, lost=(LOST,), outcome=replace(DONE, attempts=2)
)
ACCEPTED = Try(sent_s=99.9, heard_s=100.1, answer="accepted")


@dataclass
class Case:
    """A run of one job, in which all is well until a test says otherwise."""

    order: Order = ORDER
    records: Sequence[Record] = (RECORD,)
    runs: Sequence[Execution] = (RUN,)
    tries: Sequence[Try] = (ACCEPTED,)
    ids: Sequence[str] = ("a",)
    troubles: Sequence[Trouble] = ()
    losses: Sequence[Loss] = ()
    first: Life = field(default_factory=lambda: Life(service="int4-0", pid=1, log=Path(), began_s=0))
    is_signed: bool = False

    def history(self) -> History:
        history = History()
        told = history.begin(self.order)
        told.tries += self.tries
        for job_id in self.ids:
            history.accepted(self.order, job_id, ACCEPTED.sent_s)
            told.ids[job_id] = ACCEPTED
        return history

    def found(self, history: History | None = None) -> list[str]:
        timeline = Timeline()
        timeline.troubles += self.troubles
        timeline.losses += self.losses
        executions: dict[str, list[Execution]] = {}
        for run in self.runs:
            executions.setdefault(run.job_id, []).append(run)
        second = Life(service="int8-1", pid=2, log=Path(), began_s=0)
        evidence = Evidence(
            history=history or self.history(),
            records={record.job_id: record for record in self.records},
            executions=executions,
            timeline=timeline,
            lives={1: self.first, 2: second},
            names={"first": self.first, "second": second},
            lease_s=LEASE_S,
            max_attempts=3,
            is_signed=self.is_signed,
        )
        return [line.split(":")[0] for line in (*wrong_outcomes(evidence), *wrong_runs(evidence))]


def trouble(target: str, begin_s: float, end_s: float) -> Trouble:
    return Trouble(fault="stop", target=target, begin_s=begin_s, end_s=end_s)


def killed(at_s: float) -> Life:
    return Life(service="int4-0", pid=1, log=Path(), began_s=0, ended_s=at_s)


def test_a_run_that_can_be_true_is_not_complained_about() -> None:
    assert Case().found() == []


def test_a_job_that_is_gone_or_never_ended_is_lost() -> None:
    assert Case(records=(), runs=()).found() == ["LOST"]
    assert Case(records=(replace(RECORD, outcome=None),)).found() == ["LOST", "UNENDED"]


def test_a_job_may_be_forgotten_only_with_the_last_second_in_which_it_was_accepted() -> None:
    gone = Case(records=(), runs=())

    assert replace(gone, losses=(Loss(since_s=99.5, at_s=100.5),)).found() == []
    assert replace(gone, losses=(Loss(since_s=100.5, at_s=101.5),)).found() == ["LOST"]
    assert replace(gone, losses=(Loss(since_s=98, at_s=99),)).found() == ["LOST"]


def test_two_readers_who_saw_different_ends_contradict_each_other() -> None:
    case = Case()
    history = case.history()
    history.saw("a", replace(DONE, by="other", text="n0000007"))

    assert case.found(history) == ["CHANGED"]


def test_an_outcome_that_was_lost_with_a_last_second_may_be_another_one_later() -> None:
    case = Case(losses=(Loss(since_s=101.5, at_s=102.5),))
    history = case.history()
    history.saw("a", replace(DONE, by="other", state="cancelled", text=None, tier=None))

    assert case.found(history) == []


@pytest.mark.parametrize(
    "outcome",
    [
        replace(DONE, text="n0000008 aa n0000008"),
        replace(DONE, state="expired", text=None),
        replace(DONE, state="cancelled", text=None),
        replace(DONE, state="failed", text=None, code="poison"),
    ],
)
def test_an_end_that_the_job_does_not_explain_is_wrong(outcome: Seen) -> None:
    assert Case(records=(replace(RECORD, outcome=outcome),)).found() == ["WRONG"]


def test_a_key_or_a_request_without_one_belongs_to_one_job() -> None:
    second, run = replace(RECORD, job_id="b"), replace(RUN, job_id="b")
    both = Case(records=(RECORD, second), runs=(RUN, run))

    assert both.found() == ["TWICE"]
    assert replace(both, order=replace(ORDER, headers={})).found() == ["TWICE"]
    assert replace(both, losses=(Loss(since_s=100, at_s=101),)).found() == []  # the first was forgotten


def test_an_intake_that_does_not_know_an_accepted_job_is_heard() -> None:
    case = Case()
    history = case.history()
    history.did_not_find("a", "intake")

    assert case.found(history) == ["UNKNOWN"]


def test_an_execution_is_read_again_only_where_the_server_forgot_the_newer_one() -> None:
    case = Case()
    history = case.history()
    history.take([], [(99.0, 103.0, "GLUED: began anew with the same execution")])

    assert case.found(history) == ["GLUED"]
    assert replace(case, losses=(Loss(since_s=101.0, at_s=101.5),)).found(history) == []


def test_what_is_said_to_be_gone_must_have_been_forgotten() -> None:
    case = Case()
    history = case.history()
    history.told[7].gone.append((99.9, 103.0))
    history.read_to_end("a", "events", None, "stream_incomplete")

    assert sorted(case.found(history)) == ["GAP", "UNKNOWN"]
    assert replace(case, losses=(Loss(since_s=101.0, at_s=101.5),)).found(history) == []
    taken_back = replace(RECORD, lost=(LOST,), ended_s=125.0)
    late = replace(case, records=(taken_back,), runs=(replace(RUN, end_s=125.0),))
    assert late.found(history) == ["UNKNOWN"]


def test_a_job_whose_client_was_told_that_nothing_was_accepted_must_not_run() -> None:
    refused = Try(sent_s=99.9, heard_s=99.95, answer="503 queue_unreachable", is_refusal=True)  # it ran afterwards
    case = Case(tries=(refused,), ids=())

    assert case.found() == ["REFUSED"]
    assert replace(case, tries=(replace(refused, is_refusal=False, is_unknown=True),)).found() == []
    later = Try(sent_s=99.99, heard_s=100.1, answer="accepted")
    assert replace(case, tries=(refused, later), ids=("a",)).found() == []
    cancelled = replace(RECORD, outcome=replace(DONE, state="cancelled", text=None, tier=None, attempts=None))
    quiet = replace(case, records=(replace(cancelled, uncharged=FIRST),), runs=())
    assert quiet.found() == ["WRONG"]  # cancelled by nobody; but it did not run


def test_a_client_that_is_not_told_of_an_end_is_noticed() -> None:
    case = Case()
    history = case.history()
    history.told[7].gave_up.append(("http://127.0.0.1:8000", 180.0))

    assert case.found(history) == ["SILENT"]
    assert replace(case, troubles=(trouble("intake8000", 120, 175),)).found(history) == []


def test_a_submission_without_an_answer_is_noticed_unless_its_intake_stood_still() -> None:
    case = Case()
    history = case.history()
    history.told[7].unanswered.append(("http://127.0.0.1:8000", 90.0, 100.0))

    assert case.found(history) == ["SILENT"]
    assert replace(case, troubles=(trouble(EVERYBODY, 80, 120),)).found(history) == ["SILENT"]
    assert replace(case, troubles=(trouble("intake8000", 91, 93),)).found(history) == []


def test_rq_s_library_must_read_what_we_say() -> None:
    case = Case(order=replace(ORDER, delivery=Delivery.RQ, headers={}, queue="smollm2:int4:normal"))

    assert replace(case, records=(replace(RECORD, rq="finished: n0000007 aa n0000007"),)).found() == []
    assert replace(case, records=(replace(RECORD, rq="failed: without a reason"),)).found() == ["RQ"]
    assert replace(case, is_signed=True).found() == ["WRONG"]


@pytest.mark.parametrize(
    ("record", "run", "found"),
    [
        (RECORD, replace(RUN, tier="fp8"), ["BOUNDS"]),
        (replace(RECORD, floor="int8"), RUN, ["BOUNDS"]),
        (RECORD, replace(RUN, begin_s=102.2, end_s=102.3), ["AFTER"]),
        (replace(RECORD, deadline_s=100.5), RUN, ["LATE"]),
        (replace(RECORD, deadline_s=101.0, ended_s=103), replace(RUN, end_s=103.0), ["OVERRAN"]),
        (RECORD, replace(RUN, how=How.ABORTED), ["UNBACKED"]),
        (RECORD, replace(RUN, job_id="other"), ["GONE", "UNBACKED", "ATTEMPTS"]),
    ],
)
def test_an_execution_must_be_within_its_bounds_and_its_time(record: Record, run: Execution, found: list[str]) -> None:
    assert Case(records=(record,), runs=(run,)).found() == found


def test_a_worker_that_stood_still_may_begin_what_has_ended_meanwhile() -> None:
    case = Case(records=(TWICE,), runs=(replace(RUN, begin_s=131.2, end_s=131.3), AGAIN))
    stopped = (trouble("int4-0", 101, 131),)

    assert "AFTER" in case.found()
    assert "AFTER" not in replace(case, troubles=stopped).found()


def test_a_claim_is_executed_once_even_where_the_server_lost_its_last_second() -> None:
    case = Case(runs=(replace(RUN, how=How.ABORTED), replace(RUN, pid=2)), losses=(Loss(since_s=100.9, at_s=102),))

    assert case.found() == ["FENCE"]


def test_a_job_is_executed_again_and_charged_only_where_its_worker_was_lost() -> None:
    case = Case(records=(TWICE,), runs=(RUN, AGAIN))
    silent = (trouble("int4-0", 103, 119),)

    assert case.found() == ["AGAIN", "CHARGED"]
    assert replace(case, first=killed(102)).found() == []
    assert replace(case, troubles=silent).found() == []
    assert replace(case, troubles=(trouble("int4-0", 103, 108),)).found() == ["AGAIN", "CHARGED"]
    assert replace(case, troubles=(trouble(EVERYBODY, 100, 119),)).found() == ["AGAIN", "CHARGED"]
    assert replace(case, troubles=(trouble(EVERYBODY, 100, 112), trouble("int4-0", 112, 114))).found() == []


def test_a_batch_job_may_be_executed_again_once_it_has_yielded_and_is_not_charged_for_it() -> None:
    yielded = replace(RUN, how=How.ABORTED, queue="smollm2:int4:batch")
    free = replace(TWICE, uncharged=SECOND - 1, lost=(), outcome=replace(DONE, attempts=1))

    assert Case(records=(free,), runs=(yielded, AGAIN)).found() == []
    assert Case(records=(TWICE,), runs=(yielded, AGAIN)).found() == ["CHARGED"]
    for run in (replace(yielded, queue="smollm2:int4:normal"), replace(yielded, how=How.ANSWERED)):
        assert Case(records=(free,), runs=(run, AGAIN)).found() == ["AGAIN"]


def test_a_job_may_wait_for_long_before_it_is_executed_again() -> None:
    later = replace(AGAIN, begin_s=230.0, end_s=231.0)
    case = Case(records=(replace(TWICE, ended_s=231.0),), runs=(RUN, later))

    assert replace(case, troubles=(trouble("int4-0", 103, 119),)).found() == []


def test_a_charge_for_a_claim_that_never_ran_is_found() -> None:
    case = Case(records=(TWICE,), runs=(AGAIN,), first=killed(102))
    free = replace(TWICE, uncharged=SECOND - 1, lost=(replace(LOST, attempts=0),), outcome=replace(DONE, attempts=1))

    assert case.found() == ["UNRUN"]
    assert replace(case, records=(replace(TWICE, unbegun=4),)).found() == []
    assert replace(case, records=(free,)).found() == []


def test_an_engine_s_fault_must_be_one_of_the_engine_s() -> None:
    record = replace(TWICE, lost=(replace(LOST, code="engine_fault"),))

    assert Case(records=(record,), runs=(replace(RUN, how=How.FAULT), AGAIN)).found() == []
    assert Case(records=(record,), runs=(RUN, AGAIN), first=killed(102)).found() == ["CHARGED"]


@pytest.mark.parametrize(
    "changed", [{"uncharged": SECOND - 1}, {"fence": SECOND + 3}, {"outcome": replace(DONE, attempts=1)}]
)
def test_attempts_must_add_up(changed: dict[str, Any]) -> None:
    record: Record = replace(TWICE, **changed)
    runs = (RUN, replace(AGAIN, fence=record.fence))

    assert set(Case(records=(record,), runs=runs, first=killed(102)).found()) == {"ATTEMPTS"}


def test_a_loss_that_was_taken_back_costs_nothing() -> None:
    record = replace(RECORD, lost=(LOST,), ended_s=125.0)  # given up for lost, and ended by the same claim

    assert Case(records=(record,), runs=(replace(RUN, end_s=125.0),)).found() == []


def line(event: Event, at_ms: int, fence: int, how: How | None = None) -> Line:
    return Line(at_ms=at_ms, event=event, tier="int4", pid=1, job_id="a", fence=fence, how=how)


def test_begins_and_ends_of_the_log_are_joined() -> None:
    lines = [
        line(Event.BEGIN, 1000, 1),
        line(Event.BEGIN, 2000, 2),
        line(Event.END, 3000, 1, How.ABORTED),
        line(Event.BEGIN, 4000, 2),
        line(Event.END, 5000, 2, How.ANSWERED),
    ]

    (runs,) = joined(lines).values()

    assert [(run.fence, run.begin_s, run.end_s, run.how) for run in runs] == [
        (1, 1.0, 3.0, How.ABORTED),
        (2, 2.0, 5.0, How.ANSWERED),
        (2, 4.0, None, None),
    ]
