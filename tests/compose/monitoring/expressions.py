"""Which metrics an expression of PromQL reads, and which there are."""

from __future__ import annotations

import re

from monitoring.vllm_names import VLLM
from tests.conftest import ROOT

_WORDS = {"and", "or", "unless", "on", "ignoring", "by", "without", "group_left", "group_right", "offset", "bool"}
# In this order: what is no name of a metric goes, then calls, then what is left is one.
_NOISE = re.compile(r'"[^"]*"|\{[^{}]*\}|\[[^\]]*\]|\b(?:by|without|on|ignoring|group_left|group_right) ?\([^()]*\)')
_NAME = re.compile(r"(?<![\w:.$])[a-zA-Z_][\w:]*(?![\w:]| *\()")


def metrics_of(expression: str) -> set[str]:
    """Return the names of metrics that an expression reads."""
    plain = re.sub(r"\b\d+(?:[smhdw]|\.\d+|e\d+)?\b", " ", _NOISE.sub(" ", re.sub(r'"[^"]*"', "", expression)))
    return set(_NAME.findall(plain)) - _WORDS


def known_metrics() -> set[str]:
    """Return every name that Prometheus can have: those of docs/metrics.md, vLLM's, and `up`."""
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    types = {**dict(re.findall(r"^\| `([\w:]+)` \| (\w+) \|", page, re.MULTILINE)), **VLLM, "up": "gauge"}
    parts = {"histogram": ("_bucket", "_sum", "_count")}
    return {name + part for name, kind in types.items() for part in parts.get(kind, ("",))}
