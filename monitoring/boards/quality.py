"""What can be seen of answers' quality while serving; `bitladder calibrate` measures the rest."""

from __future__ import annotations

from monitoring.board import Board, figure, graph, heat
from monitoring.queries import JOB, highest, quantile, rate

_RUNS = "bitladder_run_seconds_count"

QUALITY = Board(
    "quality",
    "quality",
    "Which answers were no good, and do prompts drift?",
    {
        "Answers": [
            graph(
                "Errors",
                {
                    "{{tier}}": f"{rate('bitladder_engine_faults_total')} / ({rate(_RUNS)} + "
                    f"{rate('bitladder_engine_faults_total')})"
                },
                "Which part of a tier's requests breaks in its engines: "
                "bitladder_engine_faults_total, bitladder_run_seconds",
                "percentunit",
            ),
            graph(
                "NaN",
                {
                    "{{tier}} {{seen_by}}": f"{rate('bitladder_engine_corrupted_total', 'tier, seen_by')} "
                    f"/ on (tier) group_left () {rate(_RUNS)}"
                },
                "Which part has NaN or infinity, by where it was seen: "
                "bitladder_engine_corrupted_total, bitladder_run_seconds",
                "percentunit",
                "No NaN",
            ),
            graph(
                "NaN, last thousand requests",
                {"{{model}} {{tier}}": highest("bitladder_engine_nan_ratio")},
                "Look at the checkpoint where it is above 0.01: bitladder_engine_nan_ratio",
                "percentunit",
            ),
            graph(
                "Degenerate",
                {
                    "{{tier}} {{kind}}": f"{rate('bitladder_outputs_degenerate_total', 'tier, kind')} "
                    f"/ on (tier) group_left () {rate(_RUNS)}"
                },
                "Which part is a token loop, gibberish or empty: "
                "bitladder_outputs_degenerate_total, bitladder_run_seconds",
                "percentunit",
                "None degenerate",
            ),
            graph(
                "Cascade",
                {"{{tier}} {{verdict}}": rate("bitladder_answers_judged_total", "tier, verdict")},
                "What became of answers of a cascade: bitladder_answers_judged_total",
                "reqps",
                "No cascade",
            ),
            graph(
                "Run again",
                {"{{tier}} {{reason}}": rate("bitladder_jobs_requeued_total", "tier, reason")},
                "Jobs that were requeued: bitladder_jobs_requeued_total",
                "reqps",
                "None requeued",
            ),
            graph(
                "Dead letters",
                {"{{tier}} {{code}}": rate("bitladder_jobs_dead_lettered_total", "tier, code")},
                "Jobs for an operator to look at: bitladder_jobs_dead_lettered_total",
                "reqps",
                "No dead letters",
            ),
            figure(
                "Dead letters, waiting",
                f"max(bitladder_dead_letters{{{JOB}}})",
                "Jobs that wait for an operator: bitladder_dead_letters",
            ),
            graph(
                "Executions a job",
                {f"{{{{tier}}}} p{part}": quantile(part / 100, "bitladder_job_attempts") for part in (50, 99)},
                "How often jobs were executed until they ended: bitladder_job_attempts",
            ),
            graph(
                "Shifted",
                {"{{model}} {{tier}}": highest("bitladder_tier_shifted")},
                "1: higher tiers serve a tier's jobs, because too many broke there. bitladder_tier_shifted",
            ),
        ],
        "Prompts": [
            graph(
                "Entropy",
                {f"p{part}": quantile(part / 100, "bitladder_prompt_entropy", "", JOB) for part in (10, 50, 90)},
                "Bits per byte; a change against the audit of calibration is drift. bitladder_prompt_entropy",
            ),
            heat(
                "Entropies",
                f"sum by (le) (rate(bitladder_prompt_entropy_bucket{{{JOB}}}[$__rate_interval]))",
                "How many prompts had how many bits per byte: bitladder_prompt_entropy",
                "short",
            ),
            graph(
                "Captured for calibration",
                {"{{what}}": rate("bitladder_prompts_captured_total", "what", JOB)},
                "Prompts that were written, and dropped: bitladder_prompts_captured_total",
                "reqps",
                "Capture is off",
            ),
        ],
        "Releases": [
            graph(
                "In force",
                {
                    "intakes": f"max(bitladder_release_version{{{JOB}}})",
                    "{{model}} {{tier}}": highest("bitladder_worker_release_version"),
                },
                "The published release; 0: none. bitladder_release_version, bitladder_worker_release_version",
            ),
            graph(
                "Refused",
                {"since the start": f"max(bitladder_releases_refused{{{JOB}}})"},
                "Changes of settings or release that were not taken: bitladder_releases_refused",
            ),
        ],
    },
)
