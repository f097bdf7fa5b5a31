"""Where time goes, and whether it is in time."""

from __future__ import annotations

from monitoring.board import Board, Panel, figure, graph, heat, scatter
from monitoring.queries import JOB, SCOPE, mean, quantile, rate, total

_EXPIRED = f'{SCOPE}, state="expired"'
_COUNTED = f'{SCOPE}, state!="cancelled"'

_PARTS = (_EXPIRED, _COUNTED)


def _missed(window: str) -> str:
    expired, ended = (f"sum by (model) (rate(bitladder_jobs_ended_total{{{where}}}[{window}]))" for where in _PARTS)
    return f"{expired} / {ended}"


def _quantiles(title: str, metric: str, about: str, unit: str = "s") -> Panel:
    queries = {f"{{{{tier}}}} p{part}": quantile(part / 100, metric) for part in (50, 95, 99)}
    return graph(title, queries, f"{about}: {metric}", unit)


def _by_entropy(part: float) -> str:
    summed = f"sum by (entropy, le) (increase(bitladder_awaited_by_entropy_seconds_bucket{{{JOB}}}[$__range]))"
    return f"histogram_quantile({part}, {summed})"


def _vllm_p95(title: str, metric: str) -> Panel:
    about = f"As vLLM counts it: {metric}"
    return graph(f"{title} (p95)", {"{{tier}}": quantile(0.95, metric)}, about, "s", "No engine is vLLM")


LATENCY = Board(
    "latency",
    "latency",
    "Where does time go, from the client's first byte to the outcome?",
    {
        "As clients see it": [
            _quantiles(
                "Answer",
                "bitladder_awaited_seconds",
                "Awaited and streamed requests, from the first byte to the outcome",
            ),
            heat(
                "Answers",
                f"sum by (le) (rate(bitladder_awaited_seconds_bucket{{{SCOPE}}}[$__rate_interval]))",
                "How many requests took how long: bitladder_awaited_seconds",
            ),
            scatter(
                "Entropy against latency",
                {f"p{part}": _by_entropy(part / 100) for part in (50, 95)},
                "entropy",
                "Do answers take longer where prompts have more entropy? A point for each class of prompts, at its "
                "highest bits per byte, over the time range: bitladder_awaited_by_entropy_seconds",
                "s",
            ),
            graph(
                "Entropy and latency over time",
                {
                    "entropy (bits per byte)": mean("bitladder_prompt_entropy", "job", JOB),
                    "answer p95 (s)": quantile(0.95, "bitladder_awaited_seconds", ""),
                },
                "Do both move together? bitladder_prompt_entropy, bitladder_awaited_seconds",
            ),
        ],
        "Deadlines": [
            graph(
                "Missed",
                {"{{model}}": _missed("$__rate_interval")},
                "Which part of the jobs expired before it ended: bitladder_jobs_ended_total",
                "percentunit",
            ),
            _quantiles(
                "Share of the deadline used",
                "bitladder_deadline_used_ratio",
                "How much of its time a job had used at its end; near 1: hardly in time",
                "percentunit",
            ),
            graph(
                "Rate at which the month's misses are used up",
                {f"{window} {{{{model}}}}": _missed(window) + " / 0.01" for window in ("5m", "1h", "6h")},
                "1: the objective (1 % missed) is just met; DeadlinesMissed pages at 14.4 and 6. "
                "bitladder_jobs_ended_total",
            ),
            figure(
                "Missed, chosen time",
                f"sum(increase(bitladder_jobs_ended_total{{{_EXPIRED}}}[$__range]))",
                "Jobs that expired: bitladder_jobs_ended_total",
            ),
            figure(
                "Ended, chosen time",
                f"sum(increase(bitladder_jobs_ended_total{{{_COUNTED}}}[$__range]))",
                "Jobs that ended and were not cancelled: bitladder_jobs_ended_total",
            ),
        ],
        "Parts": [
            _quantiles("In all", "bitladder_job_seconds", "Jobs from acceptance to their end, awaited or not"),
            _quantiles(
                "Wait in the queue", "bitladder_queue_wait_seconds", "How long jobs waited until a worker claimed them"
            ),
            _quantiles(
                "First token",
                "bitladder_time_to_first_token_seconds",
                "How long streams waited for the engine's first token",
            ),
            _quantiles("Run", "bitladder_run_seconds", "How long the engine ran jobs"),
            graph(
                "Routing",
                {f"p{part}": quantile(part / 100, "bitladder_routing_seconds", "", JOB) for part in (50, 99)},
                "How long score and policy take: bitladder_routing_seconds",
                "s",
            ),
            graph(
                "Jobs that run",
                {"{{tier}}": rate("bitladder_run_seconds_count")},
                "Jobs whose run ended, in a second: bitladder_run_seconds",
                "reqps",
            ),
            graph(
                "Requests that are answered",
                {"all": total("bitladder_awaited_seconds_count")},
                "Awaited and streamed requests that ended, in a second: bitladder_awaited_seconds",
                "reqps",
            ),
        ],
        "vLLM": [
            _vllm_p95("First token", "vllm:time_to_first_token_seconds"),
            _vllm_p95("Between tokens", "vllm:inter_token_latency_seconds"),
            _vllm_p95("Wait in vLLM", "vllm:request_queue_time_seconds"),
            _vllm_p95("Request", "vllm:e2e_request_latency_seconds"),
        ],
    },
)
