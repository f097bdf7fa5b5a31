"""Audit prompts: measure, tally, draw, write aside, publish. Read this first."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from calibration.audit.features import measure
from calibration.audit.page import write_page
from calibration.audit.plots import draw_all
from calibration.audit.take import Seen
from calibration.audit.tally import tally
from calibration.folder import claimed, full_disk_named, staged
from calibration.manifest import file_digest, is_listed
from calibration.sample.sets import write_manifest
from dispatcher.sections import PolicySettings

FIGURES, PAGE = "audit.json", "audit.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is audited, and under which policy."""

    source: str
    count: int
    seed: int
    ladder: tuple[str, ...]
    policy: PolicySettings


def audit(take: Callable[[], Sequence[Seen]], question: Question, into: Path) -> dict[str, Any]:  # Any: JSON
    """Take the prompts, once it is sure that the report's folder can be written; write it and return its figures."""
    with full_disk_named(into.parent, "--out"), claimed(into, "--out", is_ours, lambda: None):
        prompts = take()
        numbers = measure([prompt.text for prompt in prompts])
        figures = tally(prompts, numbers, question.ladder, question.policy)
        with staged(into) as folder:
            plots = draw_all(folder, prompts, numbers, question.policy, figures["floors_by_kind"])
            (folder / FIGURES).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
            write_page(folder / PAGE, figures, question.source, plots)
            write_manifest(folder, _manifest(folder, question, len(prompts)))
    return figures


def is_ours(folder: Path) -> bool:
    """Tell whether the folder is an audit's report, and nothing else."""
    return is_listed(folder, "policy")


def _manifest(folder: Path, question: Question, count: int) -> dict[str, Any]:  # Any: JSON
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return {
        "source": question.source,
        "prompts": count,
        "seed": question.seed,
        "ladder": question.ladder,
        "policy": question.policy.model_dump(mode="json"),
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: version(name) for name in ("bitladder", "matplotlib", "numpy")},
        "files": [{"name": path.name, "bytes": path.stat().st_size, "sha256": file_digest(path)} for path in files],
    }
