"""Every metric of a worker, as rows (bitladder/process/metric_table.py); docs/metrics.md is written from them.

Each has the labels `model` and `tier` beside its own.
"""

from __future__ import annotations

from bitladder.contract import State
from bitladder.process.metric_table import Row
from bitladder.process.process_metrics import SECONDS

_KINDS = ("prompt", "completion")
_ENDS = tuple(state for state in State if state.is_terminal)
MAX_TENANTS = 50
_ORIGIN, _CODE, _TENANT = {"origin": None}, {"code": 100}, {"tenant": MAX_TENANTS}
_SHARES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
_ATTEMPTS = (1, 2, 3, 4, 6, 8)

JOB_ROWS = (
    Row("bitladder_jobs_ended_total", "counter", "jobs", "How many jobs ended, by state?", {"state": 4}, first=_ENDS),
    Row(
        "bitladder_jobs_overflowed_total", "counter", "jobs", "How many jobs of lower tiers were served here?", _ORIGIN
    ),
    Row(
        "bitladder_jobs_below_floor_total",
        "counter",
        "jobs",
        "How many jobs of higher tiers were served here, below their floor, with their clients' consent?",
        _ORIGIN,
    ),
    Row("bitladder_jobs_requeued_total", "counter", "jobs", "How many jobs were requeued, by reason?", {"reason": 100}),
    Row(
        "bitladder_jobs_dead_lettered_total",
        "counter",
        "jobs",
        "How many jobs went to the dead letters, by error code?",
        _CODE,
    ),
    Row("bitladder_jobs_dropped_total", "counter", "ids", "How many ids in a queue had no job record any more?"),
    Row(
        "bitladder_jobs_fenced_total",
        "counter",
        "jobs",
        "How many outcomes were refused because the lease was lost?",
    ),
    Row(
        "bitladder_chunks_unstored_total",
        "counter",
        "chunks",
        "How many chunks of streams were not stored because Redis had no memory?",
    ),
    Row("bitladder_queue_wait_seconds", "histogram", "seconds", "How long did jobs wait in a queue?", buckets=SECONDS),
    Row(
        "bitladder_time_to_first_token_seconds",
        "histogram",
        "seconds",
        "How long did streamed jobs wait for the engine's first token?",
        buckets=SECONDS,
    ),
    Row("bitladder_run_seconds", "histogram", "seconds", "How long did the engine run jobs?", buckets=SECONDS),
    Row(
        "bitladder_job_seconds",
        "histogram",
        "seconds",
        "How long did jobs take in all, from acceptance to their end, awaited or not?",
        buckets=SECONDS,
    ),
    Row(
        "bitladder_deadline_used_ratio",
        "histogram",
        "ratio",
        "Which share of the time to its deadline had a job used at its end? Above 0.99: all of it.",
        buckets=_SHARES,
    ),
    Row(
        "bitladder_job_attempts",
        "histogram",
        "executions",
        "How many executions did jobs take that ended here?",
        buckets=_ATTEMPTS,
    ),
)
SPENDING_ROWS = (
    Row(
        "bitladder_tokens_total",
        "counter",
        "tokens",
        "How many tokens were read and written?",
        {"kind": 2},
        first=_KINDS,
    ),
    Row(
        "bitladder_tenant_tokens_total",
        "counter",
        "tokens",
        "How many tokens were read and written for each tenant?",
        {**_TENANT, "kind": 2},
    ),
    Row(
        "bitladder_rent_total",
        "counter",
        "currency of the price",
        "What has the worker's time cost, idle or not?",
    ),
    Row(
        "bitladder_cost_total",
        "counter",
        "currency of the price",
        "Which part of the engine's time, as money, did each tenant's jobs use?",
        _TENANT,
    ),
)
ENGINE_ROWS = (
    Row("bitladder_engine_faults_total", "counter", "requests", "How many requests broke in the engine?"),
    Row(
        "bitladder_engine_corrupted_total",
        "counter",
        "requests",
        "How many requests had NaN or infinity, by where it was seen (the engine's counter, the answer)?",
        {"seen_by": 2},
    ),
    Row(
        "bitladder_engine_nan_ratio",
        "gauge",
        "ratio",
        "Which part of the engine's last requests (a thousand or so) had NaN or infinity?",
    ),
    Row(
        "bitladder_outputs_degenerate_total",
        "counter",
        "answers",
        "How many answers were a token loop, gibberish or empty, by kind?",
        {"kind": 4},
    ),
    Row(
        "bitladder_answers_judged_total",
        "counter",
        "answers",
        "How many answers of a cascade were accepted, kept for want of another, unknown, or made the job escalate?",
        {"verdict": 4},
    ),
    Row(
        "bitladder_engine_restarts_total",
        "counter",
        "starts",
        "How often was the engine started again, by reason?",
        {"reason": 20},
    ),
    Row(
        "bitladder_engine_start_reduced",
        "gauge",
        "0 or 1",
        "Does the engine run with less memory than configured (1)?",
    ),
    Row(
        "bitladder_engine_pause_seconds",
        "gauge",
        "seconds",
        "For how long does the worker still send the busy engine nothing?",
    ),
    Row(
        "bitladder_breaker_state",
        "gauge",
        "0, 1 or 2",
        "Is the engine's circuit breaker closed (0), half-open (1) or open (2)?",
    ),
)
WORKER_ROWS = (
    Row("bitladder_worker_in_flight", "gauge", "jobs", "How many jobs does the worker hold?"),
    Row("bitladder_worker_slots", "gauge", "jobs", "How many jobs may the worker hold?"),
    Row(
        "bitladder_worker_release_version",
        "gauge",
        "version",
        "Which published release has the worker's checkpoint (0: none)?",
    ),
    Row(
        "bitladder_worker_live_settings_revision",
        "gauge",
        "revision",
        "Which revision of the live settings does the worker go by (0: none)?",
    ),
    Row(
        "bitladder_worker_changes_refused",
        "gauge",
        "changes",
        "How many changes of its files, or of the live settings, could the worker not take since its start?",
    ),
    Row(
        "bitladder_worker_suspended",
        "gauge",
        "0 or 1",
        "Does the worker claim nothing, because claims pause (1)?",
    ),
    Row("bitladder_worker_ready", "gauge", "0 or 1", "Do the engine and Redis serve (1) or not (0)?"),
)
ROWS = (*JOB_ROWS, *SPENDING_ROWS, *ENGINE_ROWS, *WORKER_ROWS)
