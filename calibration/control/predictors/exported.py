"""A fit that is a form of routing's: it is evaluated by the form alone. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bitladder.policy_forms import Input, LearnedForm, Linear
from calibration.control.losses import Labels
from calibration.control.predictors.predictor import Numbers, Rows
from calibration.control.scores import columns_of, predict


@dataclass(frozen=True, slots=True)
class Exported:
    """Inputs, and a form for each tier."""

    inputs: tuple[Input, ...]
    tiers: dict[str, Linear]

    def losses(self, labels: Labels, rows: Rows) -> Numbers:
        columns = columns_of(self.inputs, labels.names, labels.features[rows])
        return np.array([predict(form, columns) for form in self.tiers.values()]).T

    def export(self) -> LearnedForm:
        return LearnedForm(limit=0.0, inputs=self.inputs, tiers=dict(self.tiers))
