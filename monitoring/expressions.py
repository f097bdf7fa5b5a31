"""Which metrics an expression of PromQL reads, and how Grafana sends it."""

from __future__ import annotations

import re

_WORDS = {"and", "or", "unless", "on", "ignoring", "by", "without", "group_left", "group_right", "offset", "bool"}
# In this order: what is no name of a metric goes, then calls, then what is left is one.
_NOISE = re.compile(r'"[^"]*"|\{[^{}]*\}|\[[^\]]*\]|\b(?:by|without|on|ignoring|group_left|group_right) ?\([^()]*\)')
_NAME = re.compile(r"(?<![\w:.$])[a-zA-Z_][\w:]*(?![\w:]| *\()")


def metrics_of(expression: str) -> set[str]:
    """Return the names of metrics that an expression reads."""
    plain = re.sub(r"\b\d+(?:[smhdw]|\.\d+|e\d+)?\b", " ", _NOISE.sub(" ", re.sub(r'"[^"]*"', "", expression)))
    return set(_NAME.findall(plain)) - _WORDS


def chosen(query: str, window: str = "1m") -> str:
    """Return a panel's query as Grafana sends it where everything is chosen."""
    for variable in ("job", "model", "tier"):
        query = re.sub(rf"\${variable}\b", ".*", query)
    return query.replace("$__rate_interval", window).replace("$__range", "1h")
