"""Audit prompts: measure, tally, draw, write aside, publish. Read this first."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bitladder.settings.policy_section import PolicySettings
from calibration.artifacts.folder import claimed, require_replaceable, staged
from calibration.artifacts.manifest import file_digest, is_listed
from calibration.artifacts.output_dir import try_writing, writing
from calibration.audit.aggregate import tally
from calibration.audit.features import score, table_of
from calibration.audit.load_prompts import Taken
from calibration.audit.page import write_page
from calibration.audit.plots import draw_all
from calibration.sample.sets import write_manifest

FIGURES, PAGE = "audit.json", "audit.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is audited, and under which policy."""

    source: str
    count: int
    seed: int
    max_chars: int  # of one text; the rest is cut off
    ladder: tuple[str, ...]
    policy: PolicySettings


def check_out(into: Path) -> None:
    """Raise what would prevent writing the report, or be destroyed by it, before anything is read."""
    require_replaceable(into, "--out", is_ours)
    try_writing(into.parent)


def audit(taken: Taken, question: Question, into: Path) -> dict[str, Any]:  # Any: JSON
    """Write the report's folder and return its figures."""
    scores = [score(prompt.text) for prompt in taken.prompts]
    figures = tally(taken, scores, question.ladder, question.policy)
    with writing(into.parent), claimed(into, "--out", is_ours, lambda: None), staged(into) as folder:
        plots = draw_all(folder, taken.prompts, table_of(scores), question.policy, figures)
        (folder / FIGURES).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        write_page(folder / PAGE, figures, question.source, plots)
        write_manifest(folder, _manifest(folder, question, len(taken.prompts)))
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
        "max_chars": question.max_chars,
        "ladder": question.ladder,
        "policy": question.policy.model_dump(mode="json"),
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: version(name) for name in ("bitladder", "matplotlib", "numpy")},
        "files": [{"name": path.name, "bytes": path.stat().st_size, "sha256": file_digest(path)} for path in files],
    }
