"""Audit prompts: measure, aggregate, draw, write the report's folder. Read this first."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bitladder.decision import Score
from bitladder.settings.policy_section import NamedPolicySettings, PolicySettings
from calibration.artifacts.digest import file_digest
from calibration.artifacts.folder import claimed, require_replaceable, staged, try_writing, writing
from calibration.artifacts.manifest import is_listed
from calibration.audit.aggregate import aggregate_figures
from calibration.audit.audit_page import audit_page
from calibration.audit.features import score, table_of
from calibration.audit.load_prompts import AuditedPrompts
from calibration.sample.sets import write_manifest

_FIGURES, PAGE = "audit.json", "audit.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOptions:
    """What is audited, and under which policy."""

    source: str
    count: int
    seed: int
    max_chars: int  # of one text; the rest is cut off
    ladder: tuple[str, ...]
    policy: PolicySettings
    tables: Mapping[str, NamedPolicySettings]
    with_plots: bool = True


def check_out(into: Path) -> None:
    """Raise if the report cannot be written, or would replace something else, before anything is read."""
    require_replaceable(into, "--out", _is_ours)
    try_writing(into.parent)


def audit(taken: AuditedPrompts, question: AuditOptions, into: Path) -> dict[str, Any]:  # Any: JSON
    """Write the report's folder and return its figures."""
    scores = [score(prompt.text) for prompt in taken.prompts]
    figures = aggregate_figures(taken, scores, question.ladder, question.policy, question.tables)
    with writing(into.parent), claimed(into, "--out", _is_ours, lambda: None), staged(into, private=True) as folder:
        plots = _draw(folder, taken, scores, question, figures) if question.with_plots else []
        (folder / _FIGURES).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        (folder / PAGE).write_text(audit_page(figures, question.source, plots), encoding="utf-8")
        write_manifest(folder, _manifest(folder, question, len(taken.prompts)))
    return figures


def _draw(
    folder: Path,
    taken: AuditedPrompts,
    scores: list[Score],
    question: AuditOptions,
    figures: dict[str, Any],  # Any: JSON
) -> list[Path]:
    from calibration.audit.plots import draw_all  # matplotlib takes half a second to import

    return draw_all(folder, taken.prompts, table_of(scores), question.policy, figures)


def _is_ours(folder: Path) -> bool:
    """Tell whether the folder is an audit's report, and nothing else."""
    return is_listed(folder, "policy")


def _manifest(folder: Path, question: AuditOptions, count: int) -> dict[str, Any]:  # Any: JSON
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
