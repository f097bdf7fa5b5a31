"""One exposition of the metrics of several apps, in Prometheus' text format."""

from __future__ import annotations

import re
from collections.abc import Sequence

_SAMPLE = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (.+)")


def merged_metrics(texts: Sequence[tuple[str, str]]) -> str:
    """Return one exposition in Prometheus' text format.

    Each text has its Redis' name, which its samples get as the label `redis`; the first has '', and those of the
    process are in it alone.
    """
    families: dict[str, tuple[list[str], list[str]]] = {}
    for redis, text in texts:
        name = ""
        for line in text.splitlines():
            if line.startswith("# "):
                name = line.split(" ", 3)[2]
                head, _ = families.setdefault(name, ([], []))
                if not redis or len(head) < 2:
                    head.append(line)
            elif not (redis and name.startswith(("process_", "python_"))):
                families[name][1].append(_labelled(line, redis))
    return "".join(f"{line}\n" for head, samples in families.values() if samples for line in (*head, *samples))


def _labelled(line: str, redis: str) -> str:
    parts = _SAMPLE.fullmatch(line)
    if not redis or parts is None:
        return line
    name, labels, value = parts.groups()
    return f'{name}{{{f"{labels}," if labels else ""}redis="{redis}"}} {value}'
