"""The predictors by name: those that routing can evaluate first, and of these the simplest first."""

from __future__ import annotations

from calibration.control.predictors.neighbours import Clusters, Nearest
from calibration.control.predictors.ngrams import Ngrams
from calibration.control.predictors.predictor import Predictor
from calibration.control.predictors.ridge import OneFeature, Ridge
from calibration.control.predictors.trees import Boosted, Forest, Monotone

PREDICTORS: dict[str, Predictor] = {
    "ridge": Ridge(),
    "ridge-all": Ridge(names=None),
    "monotone": Monotone(),
    "boosted": Boosted(),
    "forest": Forest(),
    "knn": Nearest(),
    "clusters": Clusters(),
    "ngrams": Ngrams(),
}
# What they are held against, and what nobody should choose.
ONE_FEATURE: dict[str, Predictor] = {name: OneFeature(name) for name in ("entropy", "tokens", "zlib_ratio")}
EXPORTABLE = ("ridge", "ridge-all", "monotone", "boosted", "forest")
