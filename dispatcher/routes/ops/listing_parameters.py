"""Parameters of the list of jobs."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from bitladder.contract import State
from bitladder.queue.json_views.finding.job_filter import MAX_AGE_S, MAX_CHARS
from bitladder.queue.json_views.job_list import DEFAULT_JOBS, MAX_JOBS
from bitladder.queue.json_views.kinds import ModelName, TierName
from bitladder.queue_name import Lane
from dispatcher.routes.parameter import Parameter

_Text = Annotated[str, Meta(min_length=1, max_length=MAX_CHARS)]
_STATE = "|".join(State)
_States = Annotated[str, Meta(pattern=f"^({_STATE})(,({_STATE}))*$")]

LISTING_PARAMETERS = {
    "JobStateQuery": Parameter(
        "state",
        "query",
        _States,
        "Only jobs in this state, or in one of several with commas between.",
        example="failed",
    ),
    "JobModelQuery": Parameter("model", "query", ModelName, "Only jobs of this model."),
    "JobTierQuery": Parameter(
        "tier", "query", TierName, "Only jobs that this tier serves or served, or that wait in its queues."
    ),
    "JobLaneQuery": Parameter("lane", "query", Lane, "Only jobs of this lane."),
    "JobTenantQuery": Parameter("tenant", "query", _Text, "Only jobs of this tenant.", example="default"),
    "JobTagQuery": Parameter("tag", "query", _Text, "Only jobs with this tag.", example="nightly"),
    "JobBatchQuery": Parameter("batch", "query", _Text, "Only lines of this batch.", example="batch_0123"),
    "JobKeyQuery": Parameter("key", "query", _Text, "Only jobs of requests with this Idempotency-Key.", example="k-1"),
    "JobOlderThanQuery": Parameter(
        "older_than",
        "query",
        Annotated[float, Meta(ge=0, le=MAX_AGE_S)],
        "Only jobs that have been in their state for more than so many seconds.",
        example=60,
    ),
    "JobErrorQuery": Parameter(
        "error", "query", _Text, "Only jobs that ended with this error code.", example="engine_fault"
    ),
    "JobLimitQuery": Parameter(
        "limit", "query", Annotated[int, Meta(ge=1, le=MAX_JOBS)], "The most jobs of a page.", DEFAULT_JOBS
    ),
    "JobAfterQuery": Parameter(
        "after", "query", Annotated[str, Meta(pattern="^[A-Za-z0-9_-]+$")], "The `next_cursor` of the page before."
    ),
}
