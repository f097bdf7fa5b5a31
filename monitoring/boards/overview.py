"""The dashboard to begin with."""

from __future__ import annotations

from monitoring.board import Board, figure, graph
from monitoring.queries import JOB, by_tier, highest, quantile, rate, total

_LOAD = 'job=~"$job", code=~"overloaded|queue_full|memory_full|tenant_quota_exceeded"'

_ROUTED = 'job=~"$job", model=~"$model", floor=~"$tier"'

OVERVIEW = Board(
    "overview",
    "overview",
    "Do users wait, where do requests go, and is anything wrong?",
    {
        "Now": [
            figure(
                "Requests",
                total("bitladder_requests_routed_total", 'job=~"$job", model=~"$model"'),
                "Requests that were routed, in a second: bitladder_requests_routed_total",
                "reqps",
            ),
            figure(
                "Oldest job",
                f"max({by_tier('bitladder_queue_oldest_age_seconds', 'max')})",
                "Age of the oldest job of any queue, batch lanes included: bitladder_queue_oldest_age_seconds",
                "s",
                "Redis unreachable",
            ),
            figure(
                "In flight",
                f"sum({by_tier('bitladder_queue_in_flight')})",
                "Jobs that run: bitladder_queue_in_flight",
                empty="Redis unreachable",
            ),
            figure(
                "Answered within",
                quantile(0.95, "bitladder_awaited_seconds", ""),
                "95 of 100 awaited and streamed requests took no longer: bitladder_awaited_seconds",
                "s",
            ),
            figure(
                "Written tokens",
                total("bitladder_tokens_total", 'job=~"$job", model=~"$model", kind="completion"'),
                "Tokens that all engines write in a second: bitladder_tokens_total",
                "short",
            ),
            figure(
                "Not reached",
                f"count(up{{{JOB}}} == 0) or vector(0)",
                "Targets that do not answer Prometheus: up",
                empty="No targets",
            ),
        ],
        "Queues": [
            graph(
                "Depth",
                {"{{tier}}": by_tier("bitladder_queue_depth")},
                "Jobs that wait, by the tier of their queue: bitladder_queue_depth",
                empty="Redis unreachable",
            ),
            graph(
                "Age of the oldest job",
                {"{{tier}}": by_tier("bitladder_queue_oldest_age_seconds", "max")},
                "How long the head of a queue has waited: bitladder_queue_oldest_age_seconds",
                "s",
                "Redis unreachable",
            ),
            graph(
                "In flight",
                {"{{tier}}": by_tier("bitladder_queue_in_flight")},
                "Jobs that run, by the tier whose queue they came from: bitladder_queue_in_flight",
                empty="Redis unreachable",
            ),
            graph(
                "Expected answer",
                {"{{tier}} {{lane}}": highest("bitladder_expected_answer_seconds", "tier, lane")},
                "After how long a job that comes now would be answered; 0: not known. "
                "bitladder_expected_answer_seconds",
                "s",
                "Admission is off",
            ),
            graph(
                "Error of the expected wait",
                {"{{tier}} {{lane}}": highest("bitladder_expected_wait_error", "tier, lane")},
                "How far the expected wait of the last jobs was off, in the median: bitladder_expected_wait_error",
                "percentunit",
                "No job has waited",
            ),
            graph(
                "Jobs that end while some wait",
                {"{{tier}}": highest("bitladder_tier_service_rate", "tier")},
                "The measured rate that admission goes by; 0: not known. bitladder_tier_service_rate",
                "reqps",
                "Admission is off",
            ),
        ],
        "Decisions": [
            graph(
                "Floors",
                {"{{floor}}": rate("bitladder_requests_routed_total", "floor", _ROUTED)},
                "Requests by the tier that the policy chose: bitladder_requests_routed_total",
                "reqps",
            ),
            graph(
                "Served by",
                {"{{tier}} {{state}}": rate("bitladder_requests_served_total", "tier, state")},
                "Awaited and streamed requests by the tier that answered, and their end: "
                "bitladder_requests_served_total",
                "reqps",
            ),
            graph(
                "Rules",
                {"{{floor}}: {{rule}}": rate("bitladder_decisions_total", "floor, rule", _ROUTED)},
                "Why requests have their floor; # stands for what was measured. bitladder_decisions_total",
                "reqps",
            ),
            graph(
                "Lanes",
                {"{{lane}}": rate("bitladder_requests_routed_total", "lane", _ROUTED)},
                "Requests by lane: bitladder_requests_routed_total",
                "reqps",
            ),
            graph(
                "Refused",
                {"{{code}}": rate("bitladder_requests_refused_total", "code", JOB)},
                "Requests that the intake refused, by error code: bitladder_requests_refused_total",
                "reqps",
                "Nothing refused",
            ),
            graph(
                "Refused for the load",
                {
                    "share": f"(sum(rate(bitladder_requests_refused_total{{{_LOAD}}}"
                    "[$__rate_interval])) or vector(0)) / ("
                    + total("bitladder_requests_routed_total", JOB)
                    + " + "
                    + total("bitladder_requests_refused_total", _LOAD)
                    + ")"
                },
                "Which part of the requests is refused because too much comes: bitladder_requests_refused_total, "
                "bitladder_requests_routed_total",
                "percentunit",
            ),
            graph(
                "Jobs that end",
                {"{{state}}": rate("bitladder_jobs_ended_total", "state")},
                "All jobs, awaited or not, by state: bitladder_jobs_ended_total",
                "reqps",
            ),
        ],
        "Batches, webhooks, pauses": [
            graph(
                "Lines of batches",
                {"{{result}}": rate("bitladder_batch_lines_total", "result", JOB)},
                "Lines that get a result: bitladder_batch_lines_total",
                "short",
                "No batches",
            ),
            graph(
                "Batches",
                {
                    "run": f"sum(bitladder_batches{{{JOB}}})",
                    "ended {{status}}": rate("bitladder_batches_ended_total", "status", JOB),
                },
                "Batches that intakes run, and how many end in a second: bitladder_batches, "
                "bitladder_batches_ended_total",
                empty="No batches",
            ),
            graph(
                "Webhooks",
                {
                    "{{result}}": rate("bitladder_webhook_deliveries_total", "result", JOB),
                    "oldest due (s)": f"max(bitladder_webhook_backlog_age_seconds{{{JOB}}})",
                    "disabled": f"max(bitladder_webhook_endpoints_disabled{{{JOB}}})",
                },
                "Attempts by result, for how long the oldest is due, and disabled endpoints: "
                "bitladder_webhook_deliveries_total, bitladder_webhook_backlog_age_seconds, "
                "bitladder_webhook_endpoints_disabled",
                empty="No webhooks",
            ),
            graph(
                "Held up",
                {
                    "suspended": f"max(bitladder_suspended{{{JOB}}})",
                    "unknown queues": f"max(bitladder_unknown_queues{{{JOB}}})",
                    "jobs in them": f"max(bitladder_unknown_queue_depth{{{JOB}}})",
                    "withdrawals": f"sum(bitladder_withdrawals_waiting{{{JOB}}})",
                },
                "Claims that pause, queues that no tier serves, and jobs still to be cancelled: bitladder_suspended, "
                "bitladder_unknown_queues, bitladder_unknown_queue_depth, bitladder_withdrawals_waiting",
            ),
            graph(
                "Broken streams",
                {"{{code}}": rate("bitladder_streams_broken_total", "code", JOB)},
                "Streams that the intake ended with an error: bitladder_streams_broken_total",
                "reqps",
                "None broke",
            ),
            graph(
                "Redis' memory",
                {"share": f"max(bitladder_redis_memory_share{{{JOB}}})"},
                "Which part of maxmemory is used; 0: no limit. bitladder_redis_memory_share",
                "percentunit",
            ),
        ],
    },
)
