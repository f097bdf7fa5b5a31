"""The lines of a stream: requests with their features, and labels of what they lost. What is neither is counted.

A stream is written by others while it is read, and may be cut, damaged or hostile: a bad line stops nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from bitladder.decision import Score
from bitladder.endpoints import Endpoint
from bitladder.policy_forms import FEATURE_NAMES, LearnedForm
from bitladder.routing.features import score_prompt
from bitladder.routing.policies.learned import bound, inputs_of
from calibration.control.drift.drift_promise import Promise
from calibration.control.losses import value_at
from calibration.errors import InputError, SourceError

_MAX_LINE_BYTES = 8 * 2**20
_MAX_NUMBER = 1e9  # of a feature or a loss; NaN is beyond it too
_MAX_TEXT = 64  # characters of a kind, or of a time


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """What a request lost, and what the policy would predict for it."""

    # The names in the state's file are of when a loss was too much or not, and nothing in between.
    loss: float | bool = msgspec.field(name="is_over")  # from 0 to 1, at the tier that served it
    bounds: tuple[float, ...]  # the predicted bound of each of the policy's tiers
    losses: tuple[float | bool | None, ...] = msgspec.field(name="over")  # of these tiers; None: it was not measured


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One line: the features, in the order of the names that were asked for, and a label, where it has one."""

    features: tuple[float, ...]
    kind: str = ""
    at: str = ""
    label: Label | None = None


class BadLineError(Exception):
    """A line that is not counted; the message is the reason, one of a few."""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of a line."""

    names: tuple[str, ...]
    policy: LearnedForm | None = None
    promise: Promise | None = None  # with the policy: the losses are read too


def lines_behind(path: Path, mark: int) -> Iterator[tuple[bytes, int]]:
    """Yield the lines of a file behind a mark, and the mark behind each.

    A last line without its end is left for later unless it is a whole object. A file that is shorter than the mark was
    begun anew, and is read from its start.

    Raises:
        SourceError: it cannot be read, or is packed.

    """
    try:
        with path.open("rb") as file:
            if file.read(2) == b"\x1f\x8b":
                raise SourceError(f"{path}: a stream is read as it grows, so it must not be packed (gzip)")
            mark = mark if mark <= path.stat().st_size else 0
            file.seek(mark)
            while line := file.readline(_MAX_LINE_BYTES):
                if not line.endswith(b"\n") and len(line) < _MAX_LINE_BYTES and _object(line) is None:
                    return
                mark += len(line)
                yield line, mark
    except OSError as error:
        raise SourceError(f"cannot read {str(path)!r}: {error.strerror or error}") from error


def read_request(line: bytes, reading: Reading) -> Request | None:
    """Return what a line says; None: nothing that counts, as a blank one or the tier that served an earlier prompt.

    Raises:
        BadLineError: it should say something, and does not.

    """
    if not line.strip():
        return None
    fields = _object(line)
    if fields is None:
        raise BadLineError("not a JSON object")
    if "served" in fields and not fields.get("prompt") and "features" not in fields:
        return None  # of a capture
    values = _features(fields, reading)
    label = None
    if reading.policy is not None and reading.promise is not None:
        label = _label(fields, values, reading.policy, reading.promise)
    return Request(
        features=tuple(values[name] for name in reading.names),
        kind=str(fields.get("kind") or "")[:_MAX_TEXT],
        at=str(fields.get("at") or fields.get("served_at") or "")[:_MAX_TEXT],
        label=label,
    )


def _object(line: bytes) -> dict[str, Any] | None:  # Any: JSON
    try:
        fields = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def _features(fields: Mapping[str, Any], reading: Reading) -> dict[str, float]:
    inputs = () if reading.policy is None else (item.name for item in reading.policy.inputs)
    names = tuple(dict.fromkeys((*reading.names, *inputs)))
    features = fields.get("features")
    if features is None and isinstance(text := fields.get("prompt"), str):
        endpoint = fields.get("endpoint")
        known = Endpoint(endpoint) if endpoint in set(Endpoint) else Endpoint.COMPLETIONS
        computed = score_prompt(text.encode("utf-8", "replace"), known, [n for n in names if n in FEATURE_NAMES])
        return {name: computed[name] for name in names}
    if not isinstance(features, dict):
        raise BadLineError("no features, and no prompt")
    values = {}
    for name in names:
        value = features.get(name)
        if value is None:
            raise BadLineError(f"feature {name} is missing")
        values[name] = _number(value, f"feature {name} is no number from 0 to 1e9")
    return values


def _label(fields: Mapping[str, Any], values: dict[str, float], policy: LearnedForm, promise: Promise) -> Label | None:
    """Return the label of a line; None: the top served it, and only requests of the tiers below are labels here."""
    tiers = fields.get("tiers")
    served = fields.get("served_by")
    reference = str(fields.get("reference") or "")
    if not isinstance(tiers, dict) or not isinstance(served, str):
        raise BadLineError("no label: tiers and served_by")
    inputs = inputs_of(policy.inputs, Score(**values))
    is_top = served == reference if reference else served not in policy.tiers
    if is_top and promise.low_share < 1:
        return None
    lost = 0.0 if is_top else _lost(tiers, served, reference, promise)
    if lost is None:
        raise BadLineError(f"no {promise.measure} of the tier that served it")
    return Label(
        loss=lost,
        bounds=tuple(bound(predictor, inputs) for predictor in policy.tiers.values()),
        losses=tuple(_lost(tiers, tier, reference, promise) for tier in policy.tiers),
    )


def _lost(tiers: Mapping[str, Any], tier: str, reference: str, promise: Promise) -> float | None:
    """Return what a tier loses beyond the reference, from 0 to 1; None: it was not measured."""
    loss, top = _loss(tiers.get(tier), promise.measure), _loss(tiers.get(reference), promise.measure)
    return None if loss is None else promise.loss(loss - (top or 0.0))


def _loss(entry: object, measure: str) -> float | None:
    value = value_at(entry, measure)
    return None if value is None else _number(value, f"{measure} is no number from 0 to 1e9")


def _number(value: object, reason: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_NUMBER:
        raise BadLineError(reason)
    return float(value)


def read_reference_line(line: str, where: str) -> tuple[dict[str, float], str]:
    """Return the features that a line of the reference has, and its kind.

    Raises:
        InputError: it is no label.

    """
    fields = _object(line.encode("utf-8", "replace"))
    if fields is None:
        raise InputError(f"{where}: not a JSON object: {line[:80]!r}")
    features = fields.get("features")
    names = [name for name in FEATURE_NAMES if not isinstance(features, dict) or name in features]
    try:
        return _features(fields, Reading(names=tuple(names))), str(fields.get("kind") or "")[:_MAX_TEXT]
    except BadLineError as error:
        raise InputError(f"{where}: {error}") from error
