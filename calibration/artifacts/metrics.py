"""The registry of metrics: which measure takes each, which way it is better, and how it is shown. Pure.

A new measure is a file in calibration/evaluate/measures with `prepare`, and a row here for each of its metrics.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

_MEASURES = "calibration.evaluate.measures"


class Counted(StrEnum):
    """What the n of a figure counts."""

    TOKENS = "tokens"
    ANSWERS = "answers"
    RUNS = "runs"  # of the engine: rounds, requests


class Better(StrEnum):
    """How a tier's value is compared with the reference's."""

    HIGHER = "higher"  # recovery = tier / reference
    LOWER = "lower"  # recovery = reference / tier
    AGREEMENT = "agreement"  # is against the reference already: recovery = the value
    NONE = "none"  # no recovery: 0 for the reference itself, or a cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric of a report."""

    measure: str  # the module that takes it
    better: Better
    counted: Counted = Counted.TOKENS
    is_lower_bound: bool = False  # a divergence of which the exact value is at least this: publish.max_kl limits it
    is_quality: bool = False  # tells how good answers are; the others, how fast they come and what they cost
    is_share: bool = False  # shown in percent
    # Taken over a few hundred items: one that was missed by chance must not decide, so that the publication gate takes
    # the upper end of the interval.
    of_few_items: bool = False
    scale: float = 1.0  # what is shown is scale * value
    digits: str = ".4g"
    unit: str = ""
    note: str = ""  # for the reader of the report

    def show(self, value: float) -> str:
        return f"{100 * value:.1f} %" if self.is_share else f"{self.scale * value:{self.digits}}{self.unit}"

    def show_measured(self, value: float) -> str:
        """Return a measured value, marked where it is only a bound of the exact one."""
        return f"≥ {self.show(value)}" if self.is_lower_bound else self.show(value)


METRICS = {
    "perplexity": Metric(measure=f"{_MEASURES}.likelihood", better=Better.LOWER, is_quality=True),
    "kl_mean": Metric(
        measure=f"{_MEASURES}.likelihood",
        better=Better.NONE,
        is_lower_bound=True,
        digits=".4f",
        note="kl_mean is a lower bound of KL(reference || tier) in nats per token: the most likely tokens of both, and "
        "one bucket for the rest.",
    ),
    "top1": Metric(
        measure=f"{_MEASURES}.likelihood",
        better=Better.AGREEMENT,
        is_quality=True,
        is_share=True,
        note="top1 is the share of tokens where tier and reference find the same token most likely.",
    ),
    "kl_by_language": Metric(
        measure=f"{_MEASURES}.likelihood",
        better=Better.NONE,
        is_lower_bound=True,
        digits=".4f",
        note="kl_by_language and kl_by_group are kl_mean of the texts of one language, or of one group of the records.",
    ),
    "kl_by_group": Metric(measure=f"{_MEASURES}.likelihood", better=Better.NONE, is_lower_bound=True, digits=".4f"),
    "answer_kl": Metric(
        measure=f"{_MEASURES}.greedy_answers",
        better=Better.NONE,
        is_lower_bound=True,
        digits=".4f",
        note="answer_kl is kl_mean along the reference's most likely answers to the prompts, token by token.",
    ),
    "answer_top1": Metric(
        measure=f"{_MEASURES}.greedy_answers",
        better=Better.AGREEMENT,
        is_quality=True,
        is_share=True,
        note="answer_top1 is the share of the tokens of these answers where tier and reference would go on alike.",
    ),
    "answer_prefix": Metric(
        measure=f"{_MEASURES}.greedy_answers",
        better=Better.AGREEMENT,
        is_quality=True,
        is_share=True,
        note="answer_prefix is the share of the tokens of these answers before the first one where they would not.",
    ),
    "pass_at_1": Metric(
        measure=f"{_MEASURES}.code_problems",
        better=Better.HIGHER,
        is_quality=True,
        is_share=True,
        counted=Counted.ANSWERS,
        of_few_items=True,
        note="pass_at_1 is HumanEval, one greedy answer a problem, judged in a sandbox.",
    ),
    "task": Metric(
        measure=f"{_MEASURES}.own_tasks",
        better=Better.HIGHER,
        is_quality=True,
        is_share=True,
        counted=Counted.ANSWERS,
        of_few_items=True,
        note="task is the share of the user's own tasks that were answered correctly.",
    ),
    "task_same": Metric(
        measure=f"{_MEASURES}.own_tasks",
        better=Better.AGREEMENT,
        is_quality=True,
        is_share=True,
        counted=Counted.ANSWERS,
        of_few_items=True,
        note="task_same is the share of the user's own tasks whose answer is the reference's, by the rule of the task.",
    ),
    "tokens_per_s": Metric(measure=f"{_MEASURES}.pace", better=Better.HIGHER, counted=Counted.RUNS),
    "ttft_ms": Metric(measure=f"{_MEASURES}.pace", better=Better.LOWER, counted=Counted.RUNS),
    "memory_bytes": Metric(
        measure=f"{_MEASURES}.pace", better=Better.NONE, counted=Counted.RUNS, scale=1e-6, digits=".0f", unit=" MB"
    ),
    "cost_per_mtok": Metric(
        measure=f"{_MEASURES}.pace",
        better=Better.NONE,
        counted=Counted.RUNS,
        note="cost_per_mtok is the price of the tier's hardware for a million tokens at the speed measured on it.",
    ),
}


def metric_of(name: str) -> str:
    """Return `perplexity` of `perplexity.code`."""
    return name.partition(".")[0]


def quality_metrics() -> list[str]:
    return [name for name, metric in METRICS.items() if metric.is_quality]


def recovery(name: str, value: float, reference: float) -> float | None:
    """Return the accuracy recovery, the share of the reference that is kept; None where there is no such thing."""
    better = METRICS[metric_of(name)].better
    if better is Better.AGREEMENT:
        return value
    over, under = (value, reference) if better is Better.HIGHER else (reference, value)
    return None if better is Better.NONE or under == 0 else over / under
