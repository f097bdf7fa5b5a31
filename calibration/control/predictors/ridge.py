"""Ridge regression on the features and their squares. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from calibration.control.losses import Labels
from calibration.control.predictors.exported import Exported
from calibration.control.predictors.predictor import Numbers, Rows
from calibration.control.scores import columns_of, fit_ridge, inputs_for
from calibration.errors import InputError


class Ridge:
    """Each tier's loss, by a sum of the features and their squares."""

    def fit(
        self, labels: Labels, added: Mapping[str, Numbers], tiers: Sequence[str], rows: Rows, seed: int
    ) -> Exported:
        del seed
        inputs = inputs_for(labels.names, labels.features[rows])
        if not inputs:
            raise InputError("every feature has the same value in all labels: there is nothing to predict a loss by")
        columns = columns_of(inputs, labels.names, labels.features[rows])
        return Exported(inputs, {tier: fit_ridge(columns, added[tier][rows]) for tier in tiers})
