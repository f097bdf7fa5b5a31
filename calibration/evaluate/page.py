"""The report as one HTML page that needs nothing beside it. Pure."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from html import escape

from calibration.artifacts.report import Report
from calibration.evaluate.report_table import Row, rows

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid #ddd; text-align: right; white-space: pre; }
th:first-child, td:first-child { text-align: left; }
tr.under td { color: #666; font-size: 13px; }
img { max-width: 100%; }
"""
_NOTES = (
    "Brackets are 95 % intervals: bootstrap over passages of up to 256 tokens for text, Wilson's for shares of right "
    "answers.",
    "kl_mean is a lower bound in nats per token: the most likely tokens of both, and one bucket for the rest.",
    "Differences and recoveries are paired: tier and reference on the same passages and problems. +a -b: only "
    "the tier, only the reference was right; p is McNemar's exact one.",
    "pass_at_1 is HumanEval, one greedy answer a problem, judged in a sandbox.",
)


def html_page(report: Report, png: bytes) -> str:
    head = "".join(f"<th>{escape(tier.tier)}</th>" for tier in report.tiers)
    body = "".join(map(_row, rows(report)))
    image = base64.b64encode(png).decode()
    paths = {tier.tier: f"{tier.checkpoint} (sha256 {tier.digest[:12]}…)" for tier in report.tiers}
    return (
        f"<!doctype html>\n<html lang=en><meta charset=utf-8><title>{escape(report.model)}: evaluation</title>"
        f"<style>{_STYLE}</style>\n<h1>{escape(report.model)}: evaluation</h1>"
        f"<p>{escape(report.made_at)}, {report.seconds:g} s, against {escape(report.reference)}.</p>\n"
        f'<img alt="quality over cost" src="data:image/png;base64,{image}">\n'
        f"<table><tr><th>metric</th>{head}</tr>\n{body}</table>\n"
        f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in _NOTES)}</ul>\n"
        f"{''.join(_failure(*its) for its in report.failed.items())}"
        f"{_list('Checkpoints', paths)}{_list('Machine', report.machine)}"
        f"{_list('Versions', report.versions)}{_list('Sources (sha256)', report.sources)}</html>\n"
    )


def _row(row: Row) -> str:
    under = " class=under" if row.title.startswith(" ") else ""
    return f"<tr{under}>{_cells((row.title, *row.cells))}</tr>\n"


def _failure(name: str, reason: str) -> str:
    return f"<h2>{escape(name)} could not be measured</h2><pre>{escape(reason)}</pre>\n"


def _cells(cells: Iterable[str]) -> str:
    return "".join(f"<td>{escape(cell)}</td>" for cell in cells)


def _list(title: str, items: Mapping[str, str]) -> str:
    lines = "".join(f"<tr>{_cells(item)}</tr>" for item in items.items())
    return f"<h2>{escape(title)}</h2><table>{lines}</table>\n"
