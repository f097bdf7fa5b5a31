"""The folder of an ablation: report.json, report.html, and the plots."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from calibration.artifacts.digest import file_digest
from calibration.artifacts.folder import claimed, require_replaceable, staged, try_writing, writing
from calibration.artifacts.manifest import is_listed
from calibration.control.ablation.page import page
from calibration.sample.sets import write_manifest

PAGE = "report.html"
_LIBRARIES = ("bitladder", "matplotlib", "numpy", "scikit-learn", "scipy")


def check_out(into: Path) -> None:
    """Raise if the report cannot be written, or would replace something else, before anything is read."""
    require_replaceable(into, "--out", _is_ours)
    try_writing(into.parent)


def with_facts(figures: dict[str, Any], labels: Path) -> dict[str, Any]:  # Any: JSON
    """Return the report with what it is of: the file of labels, the time and the versions."""
    facts = {
        "labels_file": str(labels),
        "labels_sha256": file_digest(labels),
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: version(name) for name in _LIBRARIES},
    }
    return {**figures, **facts}


def write_report(report: dict[str, Any], into: Path) -> None:  # Any: JSON
    from calibration.control.ablation.ablation_plots import (
        curves_png,
        kinds_png,
    )  # matplotlib takes half a second to import

    curves, kinds = (curves_png(report), kinds_png(report)) if report["splits"] else (None, None)
    with writing(into.parent), claimed(into, "--out", _is_ours, lambda: None), staged(into) as folder:
        (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        (folder / PAGE).write_text(page(report, curves, kinds), encoding="utf-8")
        for name, png in (("curves.png", curves), ("kinds.png", kinds)):
            if png is not None:
                (folder / name).write_bytes(png)
        files = sorted(path.name for path in folder.iterdir())
        write_manifest(folder, {"ablation": report["labels_sha256"], "files": files})


def _is_ours(folder: Path) -> bool:
    """Tell whether the folder is the report of an ablation, and nothing else."""
    return is_listed(folder, "ablation")
