"""What every predictor is: something that is fitted to labels, and then says what each tier would lose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bitladder.policy_forms import LearnedForm
from calibration.control.losses import Labels

Numbers = NDArray[np.float64]
Rows = NDArray[np.intp]


class Fitted(Protocol):
    """What was fitted to some rows of labels."""

    def losses(self, labels: Labels, rows: Rows) -> Numbers:
        """Return the predicted added loss: a row for each of these rows, a column for each tier that was fitted."""

    def export(self) -> LearnedForm | None:
        """Return the form that routing evaluates, with a limit of 0 that is still to be set; None: it has none.

        Its bounds are what `losses` returns, to the last bit.
        """


class Predictor(Protocol):
    """A way to fit what tiers lose."""

    def fit(self, labels: Labels, added: Mapping[str, Numbers], tiers: Sequence[str], rows: Rows, seed: int) -> Fitted:
        """Fit the added losses of these tiers, the lowest first, to these rows of the labels, and to no others.

        Raises:
            InputError: the labels lack what it needs.

        """
