"""The predictors by name, the simplest first."""

from __future__ import annotations

from calibration.control.predictors.predictor import Predictor
from calibration.control.predictors.ridge import Ridge

PREDICTORS: dict[str, Predictor] = {"ridge": Ridge()}
