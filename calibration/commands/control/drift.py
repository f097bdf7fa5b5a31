"""calibrate drift: whether prompts are still like those that were labelled, and whether the promise still holds."""

from __future__ import annotations

import json
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from bitladder.policy_forms import LearnedForm
from calibration.artifacts.folder import require_other
from calibration.commands.control.policy_file import read_policy
from calibration.commands.control.proposals import ApiKey, Folder
from calibration.commands.options import URL_OPTION, AsJson, read_seconds, say
from calibration.control.drift.drift_promise import Promise, promise_of_words
from calibration.control.drift.drift_proposals import Auto, in_words
from calibration.control.drift.feature_monitor import FeatureAlarm, Plan
from calibration.control.drift.loss_monitor import LossPlan
from calibration.control.drift.run_drift import DriftOptions, DriftStreams, run
from calibration.control.drift.stability_index import FOLK
from calibration.control.drift.watching import read_basis
from calibration.control.metrics_file import check_metrics_path
from calibration.control.proposals.intake_settings import IntakeSettings
from calibration.control.proposals.proposal_folder import DEFAULT_FOLDER
from calibration.errors import EngineFailedError, InputError, UnprovenError
from calibration.terminal.tabular import table

_Files = list[Path] | None
_Requests = Annotated[_Files, typer.Option(help="a stream of requests: a JSONL file or a folder, as var/capture")]
_Shadow = Annotated[_Files, typer.Option(help="a stream of labels of served requests, as var/shadow/labels.jsonl")]
_Policy = Annotated[Path | None, typer.Option(help="the tuned policy's file; its words have the promise")]
_PolicyName = Annotated[str, typer.Option(help="the NAME of its table policies.NAME, whose limit is proposed")]
_Measure = Annotated[str | None, typer.Option(help="the loss within a tier's entry (default: the policy's)")]
_Threshold = Annotated[
    float | None,
    typer.Option(min=0, help="a request that loses more counts; of a promised mean: where losses are clipped"),
]
_Alpha = Annotated[float | None, typer.Option(help="the share of all requests that may lose more, or their mean loss")]
_Delta = Annotated[float, typer.Option(help="1 - the confidence of what is proposed")]
_LowShare = Annotated[
    float, typer.Option(help="where labels are of requests below the top only: these requests' share of all")
]
_Level = Annotated[float, typer.Option(help="the chance of any false alarm over a horizon, both kinds together")]
_Window = Annotated[int, typer.Option(min=100, help="requests of a PSI window")]
_Horizon = Annotated[int, typer.Option(min=100, help="requests over which the level holds")]
_ByKind = Annotated[bool, typer.Option("--by-kind", help="watch each kind of the reference, too")]
_State = Annotated[Path, typer.Option(help="folder of what was read and seen")]
_Metrics = Annotated[Path | None, typer.Option(help="a file for node_exporter, ending in .prom")]
_Page = Annotated[Path | None, typer.Option(help="an HTML page of what was found, with a plot")]
_Auto = Annotated[bool, typer.Option("--auto", help="apply a proven limit within the limits below; needs --url")]
_MaxStep = Annotated[float, typer.Option(help="--auto: by which share the limit may fall at once")]
_PerDay = Annotated[int, typer.Option(min=1, help="--auto: how often a day")]
_Interval = Annotated[str | None, typer.Option("--every", help="run on, a pass every 60s, 5m, 1h; else one pass")]
_Url = Annotated[str | None, URL_OPTION]
_Seed = Annotated[int, typer.Option(min=0, help="of the permutations")]


def register(app: typer.Typer) -> None:
    app.command("drift")(_drift)


def _drift(
    reference: Annotated[Path, typer.Argument(help="the labels that the policy was tuned on: JSONL, in gzip or not")],
    requests: _Requests = None,
    shadow: _Shadow = None,
    policy: _Policy = None,
    policy_name: _PolicyName = "",
    measure: _Measure = None,
    threshold: _Threshold = None,
    alpha: _Alpha = None,
    delta: _Delta = 0.05,
    low_share: _LowShare = 1.0,
    level: _Level = 0.01,
    window: _Window = 500,
    horizon: _Horizon = 5000,
    by_kind: _ByKind = False,
    state: _State = Path("var/drift"),
    proposals: Folder = DEFAULT_FOLDER,
    metrics: _Metrics = None,
    page: _Page = None,
    url: _Url = None,
    api_key: ApiKey = None,
    auto: _Auto = False,
    auto_max_step: _MaxStep = 0.5,
    auto_per_day: _PerDay = 1,
    interval: _Interval = None,
    seed: _Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Read what is new in a stream, and say what has moved: features ask for new labels, losses may break the promise.

    One pass, or with --every many. Exit status 0, also where features have moved; 1: the promise is broken; 2: wrong
    input; 6: the intake does not answer.

    Example: bitladder calibrate drift labels.jsonl --requests var/capture --shadow var/shadow/labels.jsonl --policy
    policy.json --policy-name loss --every 60s
    """
    _check_files([*(requests or ()), *(shadow or ())], (reference, policy), page, metrics)
    form = _policy(policy)
    promise = _promise(form, measure, threshold, alpha, delta, low_share) if shadow else None
    limits = _auto(auto_max_step, auto_per_day, is_ready=bool(url and policy_name and shadow)) if auto else None
    plan = _plan(window, horizon, level, seed)
    basis = read_basis(reference, plan, form if promise else None, promise, LossPlan(level=level / 2), by_kind=by_kind)
    streams = DriftStreams(tuple(requests or ()), tuple(shadow or ()), state, proposals, metrics, page)
    with IntakeSettings(url, api_key) if url else nullcontext() as intake:
        _passes(DriftOptions(basis, streams, policy_name, limits, intake, _say), interval, as_json=as_json)


def _check_files(streams: list[Path], inputs: tuple[Path | None, ...], page: Path | None, metrics: Path | None) -> None:
    require_other(page, "--page", *inputs, *streams)
    require_other(metrics, "--metrics", *inputs, *streams)
    _check_streams(streams, metrics)


def _plan(window: int, horizon: int, level: float, seed: int) -> Plan:
    if horizon < window:
        raise InputError(f"--horizon must be --window or more, got {horizon} and {window}: no window would be full")
    return Plan(window=window, horizon=horizon, level=_level(level) / 2, seed=seed)


def _passes(options: DriftOptions, interval: str | None, *, as_json: bool) -> None:
    """Do one pass, or pass after pass until the process is ended: an intake that does not answer is waited for."""
    pause_s = read_seconds("--every", interval) if interval else None
    while pause_s is not None:
        try:
            _show(run(options), as_json=as_json)
        except EngineFailedError as error:
            say(f"{error}; the next pass is in {pause_s:g} s")
        time.sleep(pause_s)
    answer = run(options)
    _show(answer, as_json=as_json)
    if answer["losses"] and answer["losses"]["is_broken"]:
        raise UnprovenError("the promise is broken: see the proposals")


def _show(answer: dict[str, Any], *, as_json: bool) -> None:  # Any: JSON
    typer.echo(json.dumps(answer) if as_json else _text(answer))


def _say(lines: int | None) -> None:
    say("waiting for another command" if lines is None else f"{lines:,} lines read")


def _policy(path: Path | None) -> LearnedForm | None:
    if path is None:
        return None
    form = read_policy(path)
    if not isinstance(form, LearnedForm):
        raise InputError(f"--policy {str(path)!r} must be of the kind learned: others promise nothing of losses")
    return form


def _promise(
    form: LearnedForm | None,
    measure: str | None,
    threshold: float | None,
    alpha: float | None,
    delta: float,
    low_share: float,
) -> Promise:
    """Return what is promised: of the policy's own words, as far as options do not say otherwise."""
    if form is None:
        raise InputError("--shadow needs --policy: a promise is made of a policy")
    stated = {"measure": measure, "threshold": threshold, "alpha": alpha}
    stated = {name: value for name, value in stated.items() if value is not None}
    promise = promise_of_words(form.measure, delta)
    if promise is None and len(stated) < 3:
        raise InputError(f"--policy promises nothing ({form.measure!r}): name --measure, --threshold and --alpha")
    if not 0 < low_share <= 1:
        raise InputError(f"--low-share must be above 0 and at most 1, got {low_share:g}")
    unknown = Promise(measure="", threshold=0.0, alpha=0.0, delta=delta)  # all of it is stated
    promise = msgspec.structs.replace(promise or unknown, **stated, low_share=low_share)
    for option, value, end in (("--alpha", promise.alpha, promise.unit), ("--delta", delta, 1)):
        if not 0 < value < end:
            raise InputError(f"{option} must be above 0 and below {end:g}, got {value:g}")
    return promise


def _check_streams(streams: list[Path], metrics: Path | None) -> None:
    if not streams:
        raise InputError("name a stream: --requests, --shadow, or both")
    if metrics is not None:
        check_metrics_path(metrics)


def _level(level: float) -> float:
    if not 0 < level < 0.5:
        raise InputError(f"--level must be above 0 and below 0.5, got {level:g}")
    return level


def _auto(max_step: float, per_day: int, *, is_ready: bool) -> Auto:
    if not is_ready:
        raise InputError("--auto needs --url, --policy-name and --shadow: it changes a limit at an intake")
    if not 0 < max_step < 1:
        raise InputError(f"--auto-max-step must be above 0 and below 1, got {max_step:g}")
    return Auto(max_step=max_step, per_day=per_day)


def _text(answer: dict[str, Any]) -> str:  # Any: JSON
    lines = []
    if answer["indices"]:
        rows = [
            (name, f"{index:.3f}", f"{answer['thresholds'][name]:.3f}", _folk(index), _first(answer["moved"], name))
            for name, index in sorted(answer["indices"].items(), key=lambda item: -item[1])
        ]
        title = f"{answer['requests']:,} requests; PSI of the last window against the reference"
        lines.append(table(("feature", "PSI", "threshold", "folk", "moved"), rows, title=title))
    else:
        lines.append(f"{answer['requests']:,} requests; no window is full yet")
        lines += [f"moved: {_words(alarm)}" for alarm in answer["moved"]]
    if losses := answer["losses"]:
        verdict = "BROKEN" if losses["is_broken"] else "not refuted"
        lines.append(f"promise: {losses['in_words']}; so far {losses['so_far']}: {verdict}")
    if answer["skipped"]:
        lines.append("lines that do not count: " + ", ".join(f"{why} {n:,}" for why, n in answer["skipped"].items()))
    lines += [f"proposal {item['id']} ({item['state']}): {item['reason']}" for item in answer["proposals"]]
    lines += [f"applied: {name}" for name in answer["applied"]]
    lines += [f"not applied: {name}: {why}" for name, why in answer["not_applied"].items()]
    return "\n".join(lines)


def _first(moved: list[dict[str, Any]], name: str) -> str:  # Any: JSON
    return next((_words(alarm) for alarm in moved if alarm["feature"] == name), "")


def _words(alarm: dict[str, Any]) -> str:  # Any: JSON
    return f"{alarm['detector']}: {in_words(FeatureAlarm(**alarm))}"


def _folk(index: float) -> str:
    """Return what the folk thresholds would say, which decide nothing."""
    return "moved" if index > FOLK[1] else "look at it" if index > FOLK[0] else "stable"
