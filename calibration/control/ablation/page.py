"""The report of an ablation as rows for the terminal and as a page. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from calibration.artifacts.html_report import Section, html_page
from calibration.control.ablation.comparison import FILE
from calibration.terminal.escape import printable

Figures = dict[str, Any]  # JSON
COLUMNS = (
    "policy", "area", "rho", "left at article's cost", "of article's", "left at 70/50/30 % lowest", "half at cost",
    "lowest at equal agreement", "us",
)  # fmt: skip
_TITLES = {"random": "Held out by chance (intervals by prompt)", "source": "Held out by source (intervals by source)"}
_INTERVALS = {"random": "by_prompt", "source": "by_source"}
_FACTS = (
    "measure", "agreement", "labels", "lines_without_every_tier", "sources", "kinds", "costs", "prompt_weight",
    "spent_after_tokens", "seed", "resamples", "labels_file", "labels_sha256", "made_at", "versions",
)  # fmt: skip
_NOTES = (
    "No figure is of labels that its policy was fitted on, but for a policy's file, which may have been: folds drawn "
    "by chance and folds of whole sources, each predicted by a fit to the others.",
    "area: between random shares (0) and the oracle (1), who knows every loss; rho: Spearman's correlation with the "
    "lowest tier's loss; left: what remains of the loss of all on the lowest tier.",
    "Intervals are 95 % bootstrap intervals of the labels; that a fit would differ with other labels is not in them.",
    "A cascade pays for the lowest tier's answer, or for as much of it as was written, and for the higher one's too "
    "where it escalates; what it is held against is the router with the largest area.",
    "Stacked: the router sends some up at once, and a cascade after so many tokens some of the rest; both limits are "
    "chosen on the folds that are not shown.",
    "lowest at equal agreement: the largest share of requests on the lowest tier at which agreement is at least 99.5 % "
    "of the best single tier's.",
)


_FITTED_HERE = (
    "The policy's file was fitted on these very labels: its row says how well it fits them, and no more. What such a "
    "policy does on others is in the row of its predictor, which is held out."
)


def rows(report: Figures, split: str) -> list[list[str]]:
    """Return a row for each policy of a split."""
    latencies = report["latency_us"]
    lines = []
    for name, policy in report["splits"][split]["policies"].items():
        article = policy["at_article_cost"] or {}
        at_shares = [_number(point["remaining"], "{:.2f}") for point in policy["at_lowest_share"].values()]
        lines.append(
            [
                printable(name) + (", fitted on these labels" if name == FILE and report["fitted_here"] else ""),
                ranged(policy["area_share"], _INTERVALS[split]),
                _number((policy["spearman"] or {}).get("loss"), "{:+.2f}"),
                _number(article.get("remaining"), "{:.2f}"),
                _number(article.get("of_article"), "{:.2f}"),
                " ".join(at_shares),
                _number(policy["cost_at_half_loss"], "{:.3g}"),
                _number(policy["equal_agreement"], "{:.1%}"),
                f"{latencies[name]['us']:.3g}" if name in latencies else "",
            ]
        )
    return lines


def remarks(report: Figures) -> list[str]:
    """Return why there are no policies, or columns are empty; nothing where all is as it should be."""
    reasons = [report[name] for name in ("nothing_lost", "nothing_left") if report[name]]
    return [*reasons, _FITTED_HERE] if report["fitted_here"] and not report["nothing_lost"] else reasons


def points(report: Figures) -> list[str]:
    """Return sentences on the single tiers, the article's rule and the policy under test, as they serve."""
    ladder, singles = report["ladder"], report["singles"]
    lines = [
        "single tiers: "
        + ", ".join(
            f"{tier} costs {singles[tier]['cost']:g} and loses {_number(singles[tier]['loss'], '{:.4g}')}"
            for tier in ladder
        )
    ]
    for name, words in (("article", "the article's rule"), ("policy", "the policy under test")):
        if point := report[name]:
            shares = ", ".join(f"{tier} {share:.0%}" for tier, share in point["shares"].items())
            left = _number(point["remaining"], "{:.0%}")
            lines.append(
                f"{words}: {shares}; costs {point['cost']['value']:.4g}, and {left or 'nothing'} of the loss is left"
            )
    return lines


def cascade_sentences(report: Figures, split: str) -> list[str]:
    """Return what is lost at equal cost beside the best router: by the oracle, and by policies that see an answer.

    A sentence has those that differ in the tokens alone after which they decide.
    """
    figures = report["splits"][split]
    alike: dict[str, list[tuple[str, str]]] = {}
    for name, policy in figures["policies"].items():
        at = policy["at_article_cost"] or policy["at_lowest_share"]["0.5"]
        if "of_best_router" in at:
            tokens = str(policy["after_tokens"] or "")
            share = _number(at["of_best_router"], "{:.2f}") or "?"
            alike.setdefault(name.removesuffix(tokens).rstrip(), []).append((tokens, share))
    lines = []
    for group, pairs in alike.items():
        tokens, shares = (", ".join(filter(None, part)) for part in zip(*pairs, strict=True))
        beside = f"at equal cost it loses {shares} of the best router ({figures['best_router']})"
        lines.append(f"{printable(group)}{tokens and f' {tokens} tokens'}: {beside}")
    return lines


def page(report: Figures, curves: bytes | None, kinds: bytes | None) -> str:
    """Return the whole report as one page."""
    sections = [Section(text=remark) for remark in remarks(report)]
    if curves is not None:
        sections.append(Section(heading="Quality over cost", png=curves))
    sections.append(Section(text="\n".join(points(report))))
    for split in report["splits"]:
        sections.append(Section(heading=_TITLES[split], header=COLUMNS, rows=rows(report, split)))
        sections.append(Section(text="\n".join(cascade_sentences(report, split))))
        if routellm := report["splits"][split].get("routellm"):
            sections.append(_routellm(routellm, split))
    if kinds is not None:
        sections.append(Section(heading="Within kinds: what is left of the loss over cost", png=kinds))
    sections += [_within_kinds(report, split) for split in report["splits"] if _has_kinds(report, split)]
    if report["left_out"]:
        sections.append(Section(heading="Left out", rows=[[name, why] for name, why in report["left_out"].items()]))
    facts = [[name, str(report[name])] for name in _FACTS if name in report]
    sections.append(Section(heading="What this is of", rows=facts))
    summary = f"{report['labels']:,} labels of {report['sources']} sources and {report['kinds']} kinds."
    return html_page("Ablation of routing policies", summary, sections, _NOTES)


def _routellm(figures: Mapping[str, Figures], split: str) -> Section:
    names = list(next(iter(figures.values())))
    lines = [
        [policy, *(ranged(values[name], _INTERVALS[split]) for name in names)] for policy, values in figures.items()
    ]
    return Section(heading=f"APGR and CPT as RouteLLM has them ({split})", header=["policy", *names], rows=lines)


def _has_kinds(report: Figures, split: str) -> bool:
    return bool(report["splits"][split]["policies"]["oracle"]["within_kinds"])


def _within_kinds(report: Figures, split: str) -> Section:
    figures = report["splits"][split]
    names = [name for name in dict.fromkeys(("entropy", "ridge", figures["best_router"], "policy"))
             if (figures["policies"].get(name) or {}).get("within_kinds")]  # fmt: skip
    within = {name: figures["policies"][name]["within_kinds"] for name in names}
    kinds = figures["policies"]["oracle"]["within_kinds"]["kinds"]
    header = ["kind", "labels"] + [f"{name}: {what}" for name in names for what in ("area", "rho", "of article's")]
    lines = [["all kinds, weighted", "", *(cell for name in names for cell in _kind_cells(within[name], split))]]
    lines += [
        [printable(kind), str(kinds[kind]["labels"])]
        + [cell for name in names for cell in _kind_cells(within[name]["kinds"][kind], split)]
        for kind in kinds
    ]
    return Section(heading=f"Within kinds ({_TITLES[split].lower()})", header=header, rows=lines)


def _kind_cells(figures: Figures, split: str) -> Sequence[str]:
    return (
        ranged(figures["area_share"], _INTERVALS[split]),
        _number(figures.get("spearman"), "{:+.2f}"),
        _number(figures.get("of_article"), "{:.2f}"),
    )


def ranged(estimate: Figures | None, interval: str) -> str:
    """Return a figure with its interval."""
    if estimate is None:
        return ""
    ends = estimate[interval]
    return f"{estimate['value']:.2f}" + (f" [{ends[0]:.2f}, {ends[1]:.2f}]" if ends and None not in ends else "")


def _number(estimate: Figures | None, form: str) -> str:
    return "" if estimate is None else form.format(estimate["value"])
