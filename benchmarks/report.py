"""Put the published figures into the pages of docs/: `python -m benchmarks.report`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.harness import ROOT, Figures, say

RESULTS = ROOT / "benchmarks" / "results"
PAGES = {"recipes": ROOT / "docs" / "calibration" / "figures.md"}  # any other benchmark: docs/benchmarks.md

# Of each benchmark's rows: figure, heading, digits behind the point.
COLUMNS: Mapping[str, Sequence[tuple[str, str, int]]] = {
    "queue": (
        ("enqueue_per_s", "enqueue/s", 0),
        ("bulk_per_s", "bulk/s", 0),
        ("drain_per_s", "drain/s", 0),
        ("latency_p50_ms", "p50 ms", 2),
        ("latency_p99_ms", "p99 ms", 2),
        ("producer_us", "producer us", 0),
        ("worker_us", "worker us", 0),
        ("server_us", "server us", 0),
        ("run_commands", "commands", 1),
        ("run_reads", "reads", 2),
        ("queued_bytes", "queued B", 0),
        ("finished_bytes", "finished B", 0),
    ),
    "intake": (
        ("requests_per_s", "requests/s", 0),
        ("per_core", "per core", 0),
        ("p50_ms", "p50 ms", 1),
        ("p99_ms", "p99 ms", 1),
        ("cpu_us_intake", "intake us", 0),
        ("cpu_us_worker", "worker us", 0),
        ("cpu_us_valkey", "Valkey us", 0),
    ),
    "batches": (
        ("lines_per_s", "lines/s", 0),
        ("cpu_us_intake", "intake us", 0),
        ("cpu_us_worker", "worker us", 0),
        ("cpu_us_valkey", "Valkey us", 0),
        ("intake_mib", "intake, MiB at most", 0),
    ),
    "run_batch": (
        ("lines_per_s", "lines/s", 2),
        ("of_own", "of run_batch", 3),
        ("tokens_per_s", "tokens/s", 0),
        ("cpu_ms", "CPU, ms a line", 0),
    ),
    "score": (
        ("entropy_us", "entropy us", 1),
        ("six_us", "six us", 1),
        ("all_us", "all us", 1),
        ("article_us", "article us", 1),
        ("learned_us", "learned us", 1),
    ),
    "stream": (
        ("ttft_p50_ms", "first token p50 ms", 1),
        ("ttft_p99_ms", "p99 ms", 1),
        ("gap_p50_ms", "between tokens p50 ms", 2),
        ("gap_p99_ms", "p99 ms", 1),
    ),
    "backlog": (
        ("us_at_1000", "1,000 wait, us", 0),
        ("us_at_100000", "100,000 wait, us", 0),
        ("us_at_1000000", "1,000,000 wait, us", 0),
        ("ratio", "last of first", 2),
    ),
    "job_pages": (
        ("ms_at_1000", "1,000 jobs, ms", 1),
        ("ms_at_1000000", "1,000,000 jobs, ms", 1),
        ("redis_ms", "of it Redis, ms", 1),
        ("slowest_us", "slowest script call, us", 0),
        ("looked_at", "records looked at", 0),
    ),
    "scale": (
        ("per_s", "per s", 0),
        ("cores_used", "cores used", 2),
        ("core_valkey", "Valkey's core", 2),
        ("core_worker", "fullest worker's core", 2),
        ("core_intake", "fullest intake's core", 2),
        ("us_valkey", "Valkey us", 0),
        ("us_worker", "workers us", 0),
        ("us_intake", "intakes us", 0),
    ),
    "overload": (
        ("capacity_per_s", "capacity/s", 1),
        ("offered_per_s", "offered/s", 0),
        ("goodput", "in time, of the capacity", 3),
        ("in_time", "in time, of the accepted", 4),
        ("answer_p50_ms", "answer p50 ms", 0),
        ("refused", "refused", 2),
        ("refusal_p50_ms", "refusal p50 ms", 1),
        ("refusal_p99_ms", "p99 ms", 1),
        ("retry_after_s", "Retry-After s", 0),
        ("redis_mb", "Redis MB", 1),
        ("redis_mb_end", "at the end", 1),
        ("intake_mb", "intake MB", 0),
        ("intake_mb_end", "at the end", 0),
        ("worker_mb", "worker MB", 0),
        ("worker_mb_end", "at the end", 0),
    ),
    "burst": (
        ("jobs", "jobs", 0),
        ("p50_s", "p50 s", 1),
        ("p95_s", "p95 s", 1),
        ("p99_s", "p99 s", 1),
        ("first_p95_s", "first token p95 s", 1),
        ("misses", "after 20 s", 3),
        ("escalated", "escalated", 3),
        ("below", "below the floor", 3),
        ("rent", "rent", 2),
        ("attributed", "attributed", 2),
        *((f"at_{price:g}", f"top at {price:g}", 2) for price in (1.0, 2.0, 5.0, 8.0, 12.0)),
    ),
    "engine": (
        ("tokens_per_s", "tokens/s", 0),
        ("of_direct", "of straight", 3),
        ("p50_ms", "p50 ms", 0),
        ("own_cpu_ms", "bitladder's CPU, ms a request", 1),
    ),
    "recipes": (
        ("cpu_s", "CPU s", 0),
        ("peak_gb", "peak GB", 2),
        ("mb", "MB", 1),
        ("stored", "stored", 0),
        ("ratio_code", "perplexity code", 3),
        ("ratio_prose", "prose", 3),
        ("ratio_prompts", "prompts", 3),
        ("kl_code", "KL code", 4),
        ("kl_prose", "prose", 4),
        ("kl_prompts", "prompts", 4),
        *((f"kl_{kind}", kind, 4) for kind in ("german", "french", "spanish", "chinese", "json", "sql", "logs")),
        ("top1_code", "top-1 code", 3),
        ("top1_prose", "prose", 3),
        ("top1_prompts", "prompts", 3),
    ),
}
# A second table under the first.
SERVED = (
    ("pass_at_1", "pass@1", 0),
    ("paired", "against bf16", 0),
    ("tokens_per_s", "tokens/s", 0),
    ("ttft_p50_ms", "first token p50 ms", 0),
    ("ttft_p99_ms", "p99 ms", 0),
    ("resident_mb", "engine's memory, MB", 0),
)


def main() -> None:
    """Replace what stands between each pair of markers by the tables of that benchmark."""
    for path in sorted(RESULTS.glob("*.json")):
        figures, page = json.loads(path.read_text(encoding="utf-8")), page_of(path.stem)
        page.write_text(replaced(page.read_text(encoding="utf-8"), path.stem, section(figures)), encoding="utf-8")
        say(f"{path.stem}: {page.relative_to(ROOT)}")


def page_of(name: str) -> Path:
    """Return the page that shows a benchmark."""
    return PAGES.get(name, ROOT / "docs" / "benchmarks.md")


def replaced(page: str, name: str, text: str) -> str:
    """Return the page with new text between the markers of one benchmark."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not pattern.search(page):
        raise RuntimeError(f"{page_of(name).name} has no markers <!-- {name} --> and <!-- /{name} -->")
    return pattern.sub(lambda found: found[1] + text + found[2], page)


def section(figures: Figures) -> str:
    """Return machine and date, the rows and the targets of one benchmark."""
    its = figures["machine"]
    where = f"{its['date']}, {its['processor']}, {its['cores']} cores, Python {its['python']}."
    columns = COLUMNS.get(figures["benchmark"], ())
    tables = [rows_table(figures["rows"], columns)] if columns else []
    tables += [rows_table(figures["served"], SERVED)] if "served" in figures else []
    targets = [targets_table(figures["targets"])] if figures["targets"] else []
    return "\n".join([where, "", *tables, *targets])


def rows_table(rows: Mapping[str, Figures], columns: Sequence[tuple[str, str, int]]) -> str:
    """Return medians of the repetitions, with least and most for rates; older results lack some figures."""
    columns = [column for column in columns if any(column[0] in row for row in rows.values())]
    lines = ["| | " + " | ".join(heading for _, heading, _ in columns) + " |", "| --- |" + " --- |" * len(columns)]
    for name, row in rows.items():
        cells = [_cell(row.get(figure), digits) for figure, _, digits in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(figure: Figures | float | str | None, digits: int) -> str:
    if figure is None or isinstance(figure, str):
        return figure or ""
    if not isinstance(figure, dict):
        return f"{figure:,.{digits}f}"
    text = f"{figure['median']:,.{digits}f}"
    return f"{text} ({figure['least']:,.0f}-{figure['most']:,.0f})" if figure["median"] >= 1000 else text


def targets_table(targets: Sequence[Figures]) -> str:
    """Return what was asked for, what was measured, and whether it is met."""
    lines = ["| target | asked | measured | |", "| --- | --- | --- | --- |"]
    for row in targets:
        sign = "at most" if row["at_most"] else "at least"
        verdict = "met" if row["met"] else "**missed**"
        lines.append(f"| {row['target']} | {sign} {row['bound']:,.6g} | {row['measured']:,.4g} | {verdict} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
