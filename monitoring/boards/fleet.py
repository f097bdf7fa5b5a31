"""Workers, engines, and the processes themselves."""

from __future__ import annotations

from monitoring.board import Board, graph
from monitoring.queries import JOB, SCOPE, highest, rate, share

_NO_VLLM = "No engine is vLLM"

FLEET = Board(
    "fleet",
    "fleet",
    "Which workers serve, how full are they, and how do their engines fare?",
    {
        "Workers": [
            graph(
                "Live",
                {"{{model}} {{tier}}": highest("bitladder_live_workers")},
                "Workers of each tier that can answer: bitladder_live_workers",
                empty="Redis unreachable",
            ),
            graph(
                "Ready",
                {"{{tier}} {{instance}}": f"bitladder_worker_ready{{{SCOPE}}}"},
                "1: engine and Redis serve. bitladder_worker_ready",
                empty="No worker",
            ),
            graph(
                "Used slots",
                {
                    "{{tier}}": f"sum by (tier) (bitladder_worker_in_flight{{{SCOPE}}}) / "
                    f"sum by (tier) (bitladder_worker_slots{{{SCOPE}}})"
                },
                "Which part of the slots has a job: bitladder_worker_in_flight, bitladder_worker_slots",
                "percentunit",
                "No worker",
            ),
            graph(
                "Breaker",
                {"{{tier}} {{instance}}": f"bitladder_breaker_state{{{SCOPE}}}"},
                "0: closed, 1: half-open, 2: open. bitladder_breaker_state",
                empty="No worker",
            ),
            graph(
                "Engine restarts",
                {"{{tier}} {{reason}}": f"sum by (tier, reason) (bitladder_engine_restarts_total{{{SCOPE}}})"},
                "Since the worker's start, by reason: bitladder_engine_restarts_total",
                empty="No restarts",
            ),
            graph(
                "Held up",
                {
                    "suspended {{tier}}": highest("bitladder_worker_suspended", "tier"),
                    "pause of the engine, s {{tier}}": highest("bitladder_engine_pause_seconds", "tier"),
                    "less memory {{tier}}": highest("bitladder_engine_start_reduced", "tier"),
                },
                "Workers that claim nothing, engines that asked for a pause or run with less memory: "
                "bitladder_worker_suspended, bitladder_engine_pause_seconds, bitladder_engine_start_reduced",
                empty="No worker",
            ),
            graph(
                "Lost",
                {
                    "outcomes {{tier}}": rate("bitladder_jobs_fenced_total"),
                    "records {{tier}}": rate("bitladder_jobs_dropped_total"),
                    "chunks {{tier}}": rate("bitladder_chunks_unstored_total"),
                },
                "Outcomes of lost leases, records that vanished, chunks without room in Redis: "
                "bitladder_jobs_fenced_total, bitladder_jobs_dropped_total, bitladder_chunks_unstored_total",
            ),
        ],
        "vLLM": [
            graph(
                "Requests",
                {
                    "{{tier}} run": f"sum by (tier) (vllm:num_requests_running{{{SCOPE}}})",
                    "{{tier}} wait": f"sum by (tier) (vllm:num_requests_waiting{{{SCOPE}}})",
                },
                "In the engine; behind a queue few wait. vllm:num_requests_running, vllm:num_requests_waiting",
                empty=_NO_VLLM,
            ),
            graph(
                "KV cache",
                {"{{tier}}": f"avg by (tier) (vllm:kv_cache_usage_perc{{{SCOPE}}})"},
                "Used part, on the average of a tier's engines: vllm:kv_cache_usage_perc",
                "percentunit",
                _NO_VLLM,
            ),
            graph(
                "Prefix cache",
                {"{{tier}}": share("vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total")},
                "Which part of the asked tokens was there: vllm:prefix_cache_hits_total, "
                "vllm:prefix_cache_queries_total",
                "percentunit",
                _NO_VLLM,
            ),
            graph(
                "Preemptions",
                {"{{tier}}": rate("vllm:num_preemptions_total")},
                "Requests that were pushed out and computed again: vllm:num_preemptions_total",
                "reqps",
                _NO_VLLM,
            ),
            graph(
                "Tokens",
                {
                    "{{tier}} read": rate("vllm:prompt_tokens_total"),
                    "{{tier}} written": rate("vllm:generation_tokens_total"),
                },
                "In a second: vllm:prompt_tokens_total, vllm:generation_tokens_total",
                "short",
                _NO_VLLM,
            ),
            graph(
                "Ends",
                {"{{tier}} {{finished_reason}}": rate("vllm:request_success_total", "tier, finished_reason")},
                "Requests by how they ended: vllm:request_success_total",
                "reqps",
                _NO_VLLM,
            ),
        ],
        "Processes": [
            graph(
                "CPU",
                {"{{job}} {{instance}}": f"rate(process_cpu_seconds_total{{{JOB}}}[$__rate_interval])"},
                "Cores in use, without the engines': process_cpu_seconds_total",
                empty="No targets",
            ),
            graph(
                "Memory",
                {"{{job}} {{instance}}": f"process_resident_memory_bytes{{{JOB}}}"},
                "Without the engines': process_resident_memory_bytes",
                "bytes",
                "No targets",
            ),
            graph(
                "Versions",
                {"{{version}} on Python {{python}}": f"count by (version, python) (bitladder_build_info{{{JOB}}})"},
                "How many processes run which version: bitladder_build_info",
                empty="No targets",
            ),
        ],
    },
)
