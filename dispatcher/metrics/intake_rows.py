"""Every metric of the intake, as rows (bitladder/process/metric_table.py); docs/metrics.md is written from them."""

from __future__ import annotations

from bitladder.process.metric_table import MODEL_TIER, Row
from bitladder.process.process_metrics import SECONDS
from bitladder.queue.pauses import MAX_PAUSES

_LANE = {"lane": None}
_CODE = {"code": 100}
_QUEUE = {"queue": None}
_BITS = (2, 3, 3.5, 4, 4.25, 4.5, 4.75, 5, 5.5, 6, 7, 8)
# Bounds of the classes of prompts for which latency is counted; the label is a number, so that it can be an axis.
ENTROPY_BOUNDS = (3, 3.5, 4, 4.25, 4.5, 4.75, 5, 6, 8)
_ANSWER_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_MICROSECONDS = (1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 1e-3, 1e-2)

# What every intake shows alike: aggregate these with max, never with sum.
OVERVIEW_ROWS = (
    Row("bitladder_suspended", "gauge", "0 or 1", "Do all claims pause (1)?"),
    Row("bitladder_paused", "gauge", "0 or 1", "Is this paused by an operator (1)?", {"scope": MAX_PAUSES}),
    Row("bitladder_unknown_queues", "gauge", "queues", "How many queues are there that no tier serves?"),
    Row("bitladder_unknown_queue_depth", "gauge", "jobs", "How many jobs wait in queues that no tier serves?"),
)
REQUEST_ROWS = (
    Row(
        "bitladder_requests_routed_total",
        "counter",
        "requests",
        "How many requests were routed to each floor tier?",
        {"model": None, "floor": None, "lane": None},
    ),
    Row(
        "bitladder_decisions_total",
        "counter",
        "requests",
        "Why had requests their floor: by which rule of which policy? The rule is without what was measured.",
        {"model": None, "floor": None, "policy": 50, "rule": 50},
    ),
    Row(
        "bitladder_canary_requests_total",
        "counter",
        "requests",
        "How many requests for a model were drawn for its candidate, and went there or (no_worker, unfit) did not?",
        {"model": None, "end": 3},
    ),
    Row(
        "bitladder_requests_refused_total",
        "counter",
        "requests",
        "How many requests were refused at the intake, by error code?",
        _CODE,
    ),
    Row(
        "bitladder_requests_served_total",
        "counter",
        "requests",
        "How many awaited and streamed requests were answered, by tier and end?",
        {**MODEL_TIER, "state": 4},
    ),
    Row(
        "bitladder_streams_broken_total",
        "counter",
        "streams",
        "How many streams did the intake end with an error, by its code?",
        _CODE,
    ),
    Row(
        "bitladder_prompts_captured_total",
        "counter",
        "prompts",
        "How many prompts were written for calibration, and how many dropped because writing was too slow?",
        {"what": 2},
    ),
    Row(
        "bitladder_prompt_entropy",
        "histogram",
        "bits per byte",
        "How many bits per byte do prompts have? Only where the policy in force reads it.",
        buckets=_BITS,
    ),
    Row(
        "bitladder_routing_seconds",
        "histogram",
        "seconds",
        "How long do score and policy take?",
        buckets=_MICROSECONDS,
    ),
    Row(
        "bitladder_awaited_seconds",
        "histogram",
        "seconds",
        "How long do awaited and streamed requests take, from the first byte to the outcome?",
        MODEL_TIER,
        SECONDS,
    ),
    Row(
        "bitladder_awaited_by_entropy_seconds",
        "histogram",
        "seconds",
        "How long do they take by their prompt's entropy? The label is the highest of its class, in bits per byte. "
        "Only where the policy in force reads it.",
        {"entropy": 9},
        _ANSWER_SECONDS,
    ),
)
QUEUE_ROWS = (
    Row("bitladder_queue_depth", "gauge", "jobs", "How many jobs wait in a queue?", _QUEUE),
    Row("bitladder_queue_in_flight", "gauge", "jobs", "How many jobs of a queue are running?", _QUEUE),
    Row("bitladder_queue_oldest_age_seconds", "gauge", "seconds", "How old is the head of a queue?", _QUEUE),
    Row("bitladder_live_workers", "gauge", "workers", "How many workers of a tier can answer?", MODEL_TIER),
    Row(
        "bitladder_tier_shifted",
        "gauge",
        "0 or 1",
        "Do higher tiers serve a tier's jobs (1), because too many of them break there?",
        MODEL_TIER,
    ),
    Row("bitladder_dead_letters", "gauge", "jobs", "How many dead letters wait for an operator?"),
    Row("bitladder_release_version", "gauge", "version", "Which published release does the intake show (0: none)?"),
    Row(
        "bitladder_releases_refused",
        "gauge",
        "changes",
        "How many changes of the settings' files, or of the live settings, could not be taken since the start?",
    ),
    Row(
        "bitladder_live_settings_revision",
        "gauge",
        "revision",
        "Which revision of the live settings does the intake go by (0: none)?",
    ),
)
ADMISSION_ROWS = (
    Row(
        "bitladder_tier_service_rate",
        "gauge",
        "jobs per second",
        "How many jobs of a tier's queues end in a second while some wait? 0: not known.",
        MODEL_TIER,
    ),
    Row(
        "bitladder_expected_answer_seconds",
        "gauge",
        "seconds",
        "After how long would a job that comes in now be answered? 0: not known.",
        MODEL_TIER | _LANE,
    ),
    Row(
        "bitladder_expected_wait_error",
        "gauge",
        "ratio",
        "How far was the expected wait of the last jobs off, by the real one, in the median?",
        MODEL_TIER | _LANE,
    ),
    Row(
        "bitladder_redis_memory_share",
        "gauge",
        "ratio",
        "How much of Redis' maxmemory is used? 0: there is no limit.",
    ),
)
WEBHOOK_ROWS = (
    Row(
        "bitladder_webhook_deliveries_total",
        "counter",
        "attempts",
        "How many attempts at deliveries of webhooks were made (delivered, retrying, failed), and deliveries dropped?",
        {"result": 4},
    ),
    Row(
        "bitladder_webhook_backlog_age_seconds",
        "gauge",
        "seconds",
        "For how long is the oldest delivery of a webhook due?",
    ),
    Row(
        "bitladder_webhook_endpoints_disabled",
        "gauge",
        "endpoints",
        "How many endpoints of webhooks are disabled, because they have failed for long or are gone?",
    ),
)
BATCH_ROWS = (
    Row("bitladder_batches", "gauge", "batches", "How many batches does the intake run?"),
    Row("bitladder_batches_ended_total", "counter", "batches", "How many batches have ended?", {"status": 8}),
    Row(
        "bitladder_batch_lines_total",
        "counter",
        "lines",
        "How many lines of batches have a result: completed, failed, expired or cancelled?",
        {"result": 4},
    ),
)
WITHDRAWAL_ROWS = (
    Row(
        "bitladder_withdrawals_waiting",
        "gauge",
        "jobs",
        "How many jobs that nobody awaits are still to be cancelled?",
    ),
)
ROWS = (
    *OVERVIEW_ROWS,
    *REQUEST_ROWS,
    *QUEUE_ROWS,
    *ADMISSION_ROWS,
    *WEBHOOK_ROWS,
    *BATCH_ROWS,
    *WITHDRAWAL_ROWS,
)
