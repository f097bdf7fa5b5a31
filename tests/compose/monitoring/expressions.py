"""Which metrics and labels there are, and which labels an expression of PromQL goes by."""

from __future__ import annotations

import re

from monitoring.vllm_names import VLLM
from tests.conftest import ROOT


def known_metrics() -> set[str]:
    """Return every name that Prometheus can have: those of docs/metrics.md, vLLM's, and `up`."""
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    types = {**dict(re.findall(r"^\| `([\w:]+)` \| (\w+) \|", page, re.MULTILINE)), **VLLM, "up": "gauge"}
    parts = {"histogram": ("_bucket", "_sum", "_count")}
    return {name + part for name, kind in types.items() for part in parts.get(kind, ("",))}


def labels_of(expression: str) -> list[tuple[str, set[str]]]:
    """Return the labels that each selector of an expression goes by."""
    selectors = re.findall(r"([a-zA-Z_][\w:]*)\{([^{}]*)\}", expression)
    return [(name, set(re.findall(r"(\w+) ?(?:=~|!~|!=|=)", inner))) for name, inner in selectors]


def known_labels(metric: str) -> set[str]:
    """Return the labels that a metric has at Prometheus: its own, its process's and Prometheus' two."""
    if metric.startswith("vllm:"):
        return {"job", "instance", "model", "tier", "engine", "model_name", "finished_reason"}
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    base = re.sub(r"_(bucket|sum|count)$", "", metric)
    row = re.search(rf"^\| `{base}` \| \w+ \| ([^|]*)\|", page, re.MULTILINE)
    of_worker = row is not None and page.index("## Worker") < row.start() < page.index("## Every process")
    own = set(re.findall(r"`(\w+)`", row[1])) if row else set()
    return {"job", "instance"} | own | ({"model", "tier"} if of_worker else set())
