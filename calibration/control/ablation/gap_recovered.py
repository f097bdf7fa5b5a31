"""What RouteLLM measures of a router between a weak and a strong model (Ong et al., arXiv 2406.18665, section 3). Pure.

PGR is the share of the gap between the two models' accuracies that routed answers recover; APGR is the area under PGR
over the share of calls to the strong model; CPT(x %) is the least share of such calls that recovers x % of the gap. As
in that paper's evaluation code (lm-sys/RouteLLM, routellm/evals/evaluate.py), the curve has eleven points, at tenths of
the scores, and is straight between them: so a random router has an APGR of 0.5, as its tables print it.
"""

from __future__ import annotations

import numpy as np

from calibration.control.ablation.cost_curves import Curves, Numbers, first_within, means

BINS = 10
RECOVERED = (0.2, 0.5, 0.8)


def gap_recovered(scores: Numbers, wrong: Numbers, weights: Numbers) -> dict[str, Numbers]:
    """Return APGR and CPT for each row of weights; nan where the strong model is no better.

    The higher the score, the sooner the strong model is called; `wrong`: 1 where the weak model (first column) or the
    strong one was wrong.
    """
    thresholds = np.quantile(scores, np.linspace(1, 0, BINS + 1))
    strong = scores[:, None] >= thresholds
    strong[:, 0] = scores > thresholds[0]  # nothing is above it
    lost = np.where(strong, wrong[:, 1:], wrong[:, :1])
    curve = Curves(means(weights, strong.astype(float)), means(weights, lost))
    of_weak, of_strong = means(weights, wrong).T
    gap = np.where(of_weak > of_strong, of_weak - of_strong, np.nan)
    with np.errstate(invalid="ignore"):
        figures = {"apgr": (of_weak - curve.area()) / gap}
        for share in RECOVERED:
            figures[f"cpt_{100 * share:.0f}"] = first_within(curve.losses, of_weak - share * gap, curve.costs)
    return figures
