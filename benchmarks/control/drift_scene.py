"""What replays of drift are drawn from: prompts with measured losses, and a policy that was tuned on some of them."""

from __future__ import annotations

import gzip
import json
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import ROOT
from bitladder.decision import Score
from bitladder.policy_forms import LearnedForm
from bitladder.routing.policies.learned import bound, inputs_of
from calibration.control.drift.drift_promise import Promise
from calibration.control.drift.stream_lines import Label
from calibration.control.losses import Labels, read_labels
from calibration.control.tuning import Question, tune

DATA = ROOT.parent / "shared" / "data"
LOSSES, TRACE = DATA / "smollm2-losses.jsonl.gz", DATA / "azure-llm-2023-conv.csv.gz"
TIER, MEASURE = "int4gptq", "kl_cont"
QUESTION = Question(
    costs={TIER: 0.3, "top": 1.0}, measure=MEASURE, threshold=0.2, alpha=0.08, delta=0.05,
    promise="high-probability", seed=0,
)  # fmt: skip
PROMISE = Promise(measure=MEASURE, threshold=QUESTION.threshold, alpha=QUESTION.alpha, delta=QUESTION.delta)
PROSE = {"docstring", "man_en", "doc_en", "qa_mc", "qa_reason", "readme", "prose_en", "instr_en", "text_ask"}
CODE = {"code_c", "code_js", "code_py", "code_sh", "code_sql", "json", "csv", "yaml_conf", "log"}
OTHERS = {"doc_zh", "doc_fr", "doc_de", "chat_de", "chat_zh", "chat_fr", "instr_zh"}


@dataclass(frozen=True)
class Population:
    """Rows to draw requests from: features, the loss of the low tier, and the policy's bound."""

    features: NDArray[np.float64]
    losses: NDArray[np.float64]
    bounds: NDArray[np.float64]

    def risk(self, limit: float) -> float:
        """Return the share of all requests that lose too much under a limit: exactly."""
        return float(((self.bounds <= limit) & (self.losses > PROMISE.threshold)).mean())

    def loss(self, limit: float) -> float:
        return float(np.where(self.bounds <= limit, self.losses, 0.0).mean())

    def low_share(self, limit: float) -> float:
        return float((self.bounds <= limit).mean())

    def label(self, row: int, limit: float) -> Label:
        over = bool(self.losses[row] > PROMISE.threshold)
        bound = float(self.bounds[row])
        return Label(loss=over and bound <= limit, bounds=(bound,), losses=(over,))


@dataclass(frozen=True)
class Scene:
    """The policy, and what requests are drawn from."""

    names: tuple[str, ...]
    form: LearnedForm
    prose: Population
    groups: dict[str, Population]


def read_scene(path: Path) -> Scene:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    rows = [row for row in rows if TIER in row]
    fitted = _labels([row for row in rows if row["kind"] in PROSE and _fifth(row) < 3])
    form, _ = tune(fitted, QUESTION)
    if form is None:
        raise SystemExit("the labels promise nothing")
    held_out = [row for row in rows if _fifth(row) >= 3]
    prose = _population(form, _labels([row for row in held_out if row["kind"] in PROSE]))
    kinds = {"to code and JSON": CODE, "to other languages": OTHERS}
    # No row of these was fitted on: all of them count.
    groups = {name: _population(form, _labels([r for r in rows if r["kind"] in some])) for name, some in kinds.items()}
    return Scene(fitted.names, form, prose, groups)


def _fifth(row: dict[str, Any]) -> int:
    return zlib.crc32(row["sha256_16"].encode()) % 5


def _labels(rows: Sequence[dict[str, Any]]) -> Labels:
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
        file.flush()
        return read_labels(Path(file.name), (TIER, "top"), MEASURE)[0]


def _population(form: LearnedForm, labels: Labels) -> Population:
    scores = [Score(**dict(zip(labels.names, map(float, row), strict=True))) for row in labels.features]
    bounds = [bound(form.tiers[TIER], inputs_of(form.inputs, score)) for score in scores]
    return Population(labels.features, labels.losses[TIER], np.array(bounds))
