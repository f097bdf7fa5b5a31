"""A pass of drift as one page: PSI beside its thresholds, what has moved, the promise, and what is proposed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from calibration.artifacts.html_report import Section, html_page
from calibration.artifacts.png import png_of
from calibration.control.drift.stability_index import FOLK

_NOTES = (
    "PSI compares the last window with the reference labels, feature by feature; its threshold is by permutation, over "
    f"all features and windows together. The folk thresholds ({FOLK[0]:g} and {FOLK[1]:g}) decide nothing.",
    "Features that move ask for new labels. Only losses take the promise back.",
    "The risk is over all requests, where one that the top served loses nothing. Bets against the promise decide; what "
    "the risk is at least is by mapie's bound, which is slower, and decides nothing.",
)


def drift_page(answer: Mapping[str, Any]) -> str:
    """Return the page of what a pass has found."""
    losses = answer["losses"]
    summary = f"{answer['requests']:,} requests; {len({alarm['feature'] for alarm in answer['moved']})} features moved"
    sections = [Section(heading="Features", png=_bars(answer))] if answer["indices"] else []
    if answer["moved"]:
        header = ("feature", "seen by", "group", "from request", "mean before", "mean after", "in deviations")
        rows = [
            (
                alarm["feature"], alarm["detector"], alarm["group"], f"{alarm['since']:,}", f"{alarm['before']:.4g}",
                f"{alarm['after']:.4g}", f"{alarm['deviations']:+.2f}",
            )
            for alarm in answer["moved"]
        ]  # fmt: skip
        sections.append(Section(heading="Moved", header=header, rows=rows))
    if losses:
        verdict = "broken" if losses["is_broken"] else "not refuted"
        summary += f"; the promise is {verdict}"
        text = (
            f"The promise is that {losses['in_words']}, at the limit {losses['limit']:.4g}. "
            f"So far: {losses['so_far']}. It is {verdict}."
        )
        sections.append(Section(heading="The promise", text=text))
    if answer["proposals"]:
        proposed = [(item["id"], item["kind"], item["state"], item["reason"]) for item in answer["proposals"]]
        sections.append(Section(heading="Proposals", header=("id", "kind", "state", "reason"), rows=proposed))
    return html_page("Drift", summary, sections, _NOTES)


def _bars(answer: Mapping[str, Any]) -> bytes:
    from matplotlib.figure import Figure as Canvas

    names = sorted(answer["indices"], key=lambda name: answer["indices"][name])
    moved = {alarm["feature"] for alarm in answer["moved"]}
    canvas = Canvas(figsize=(7, 0.26 * len(names) + 1), layout="constrained")
    axes = canvas.subplots()
    colours = ["tab:red" if name in moved else "tab:blue" for name in names]
    axes.barh(names, [answer["indices"][name] for name in names], color=colours)
    thresholds = [answer["thresholds"][name] for name in names]
    axes.plot(thresholds, names, "k|", markersize=11, label="threshold by permutation")
    for folk in FOLK:
        axes.axvline(
            folk, color="grey", linewidth=0.8, linestyle=":", label="folk threshold" if folk == FOLK[0] else None
        )
    axes.set_xlabel("PSI of the last window (red: has moved)")
    axes.legend(fontsize=8, loc="lower right")
    return png_of(canvas)
