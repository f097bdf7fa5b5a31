"""Policies that are data: rules over features, or a prediction of what each tier would lose. Pure.

Operators write them, or `calibration` does; the settings read them, and routing/policies decides by them. They are read
strictly and bounded in every size, and what a wrong one holds is refused with the value and what is expected.
docs/routing.md has an example of each.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from bitladder.decision import Score
from bitladder.errors import ConfigError

MAX_BYTES = 256 * 1024
# Far above any feature and any loss: whatever is multiplied and summed stays finite.
Number = Annotated[float, Meta(ge=-1e9, le=1e9)]
Version = Annotated[int, Meta(ge=1, le=2**31)]
_Word = Annotated[str, Meta(min_length=1, max_length=63)]

FEATURE_NAMES = Score.__struct_fields__
# What rules may look at beside the features of a prompt: what its client asked for.
ASKED_NAMES = ("priority", "max_latency_ms", "deadline_ms")
_CONDITION = re.compile(r"\s*([a-z0-9_]+)\s*(<=|>=|<|>)\s*([+-]?[0-9]{1,12}(?:\.[0-9]{1,12})?)\s*")


class Comparison(NamedTuple):
    """A condition of a rule: a value, how it is compared, and with what."""

    name: str
    operator: str
    limit: float


def read_condition(text: str) -> Comparison:
    """Read a condition, as `tokens > 800`.

    Raises:
        ValueError: it is none, or it names what is not known.

    """
    read = _CONDITION.fullmatch(text)
    if read is None:
        raise ValueError(f"a condition is written as `tokens > 800`, with one of < <= > >=, got {text[:80]!r}")
    name, operator, limit = read.groups()
    _check_name(name, (*FEATURE_NAMES, *ASKED_NAMES))
    return Comparison(name, operator, float(limit))


def _check_name(name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        # The name first: what shows an error may cut its end.
        raise ValueError(f"{name[:80]!r} is no feature, expected one of {', '.join(known)}")


class _Form(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all parts have in common: no field but the known ones."""


class ThresholdRule(_Form, frozen=True, kw_only=True):
    """Where all its conditions hold, the floor is this tier."""

    when: Annotated[tuple[Annotated[str, Meta(max_length=200)], ...], Meta(min_length=1, max_length=8)]
    floor: _Word

    def __post_init__(self) -> None:
        for condition in self.when:
            read_condition(condition)


class ThresholdForm(_Form, frozen=True, kw_only=True, tag_field="kind", tag="threshold"):
    """Rules, in order: the first one that holds chooses the floor."""

    version: Version = 1
    rules: Annotated[tuple[ThresholdRule, ...], Meta(min_length=1, max_length=64)]
    otherwise: _Word  # the tier where no rule holds

    @property
    def named_tiers(self) -> tuple[str, ...]:
        return (*(rule.floor for rule in self.rules), self.otherwise)


class Input(_Form, frozen=True, kw_only=True):
    """A feature as a predictor takes it: (value - mean) / scale, of log(1 + value) where `log` is set."""

    name: str
    log: bool = False
    mean: Number = 0.0
    scale: Annotated[float, Meta(ge=1e-9, le=1e9)] = 1.0

    def __post_init__(self) -> None:
        _check_name(self.name, FEATURE_NAMES)


class _Predictor(_Form, frozen=True, kw_only=True, tag_field="form"):
    """The loss of one tier: a prediction, held between `low` and `high`, and what is promised of it.

    `bounds`: pairs of a prediction and the bound of the loss up to there, both rising, up to `high`; none: the
    prediction is the bound.
    """

    low: Number = 0.0
    high: Number
    bounds: Annotated[tuple[tuple[Number, Number], ...], Meta(max_length=256)] = ()

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low must not be above high ({self.high:g}), got {self.low:g}")
        for (before, bound), (after, next_bound) in pairwise(self.bounds):
            if before >= after or bound > next_bound:
                raise ValueError(f"bounds must rise, got {(before, bound)} before {(after, next_bound)}")
        if self.bounds and self.bounds[-1][0] < self.high:
            raise ValueError(f"bounds must reach high ({self.high:g}), got {self.bounds[-1][0]:g} as the last one")


class Linear(_Predictor, frozen=True, kw_only=True, tag="linear"):
    """A sum of the inputs by weight, and of their squares: what a ridge regression fits."""

    intercept: Number
    weights: Annotated[tuple[Number, ...], Meta(max_length=32)]  # one per input
    squares: Annotated[tuple[Number, ...], Meta(max_length=32)] = ()  # one per input, or none


class Node(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A place in a tree: [input, limit, below, above], or [-1, value] for a leaf.

    `below` and `above` are places in the list of nodes, behind this one: up to the limit `below` is next, else `above`.
    """

    input: Annotated[int, Meta(ge=-1, le=31)]
    value: Number
    below: Annotated[int, Meta(ge=0, le=63)] = 0
    above: Annotated[int, Meta(ge=0, le=63)] = 0


class Trees(_Predictor, frozen=True, kw_only=True, tag="trees"):
    """A base, and what each tree adds to it; a stump is a tree of three nodes."""

    base: Number = 0.0
    trees: Annotated[
        tuple[Annotated[tuple[Node, ...], Meta(min_length=1, max_length=64)], ...], Meta(min_length=1, max_length=128)
    ]

    def __post_init__(self) -> None:
        super().__post_init__()
        for tree in self.trees:
            for place, node in enumerate(tree):
                if node.input >= 0 and not (place < node.below < len(tree) and place < node.above < len(tree)):
                    raise ValueError(f"a node must lead to later nodes of its tree, got {list(_values(node))}")


def _values(node: Node) -> tuple[float, ...]:
    return (node.input, node.value, node.below, node.above)


class LearnedForm(_Form, frozen=True, kw_only=True, tag_field="kind", tag="learned"):
    """What each tier is predicted to lose on a prompt: the floor is the lowest one whose bound is within the limit.

    A tier without a predictor is never chosen, but for the top of the ladder, where none is within the limit.
    """

    schema: Literal[1] = 1
    version: Version = 1
    measure: Annotated[str, Meta(max_length=200)] = ""  # in words: of what the limit is
    labels: Annotated[str, Meta(max_length=64)] = ""  # SHA-256 of the file that it was fitted on
    limit: Annotated[float, Meta(ge=0, le=1e9)]
    inputs: Annotated[tuple[Input, ...], Meta(min_length=1, max_length=32)]
    tiers: Annotated[dict[_Word, Linear | Trees], Meta(min_length=1, max_length=16)]

    def __post_init__(self) -> None:
        count = len(self.inputs)
        for tier, predictor in self.tiers.items():
            if isinstance(predictor, Linear):
                for name, weights in (("weights", predictor.weights), ("squares", predictor.squares or (0,) * count)):
                    if len(weights) != count:
                        raise ValueError(f"tier {tier}: {name} must be {count}, one per input, got {len(weights)}")
            elif any(node.input >= count for tree in predictor.trees for node in tree):
                raise ValueError(f"tier {tier}: a node's input must be below {count}, the number of inputs")

    @property
    def named_tiers(self) -> tuple[str, ...]:
        return tuple(self.tiers)


Form = ThresholdForm | LearnedForm
_encode = msgspec.json.Encoder(order="sorted").encode


def read_form(data: bytes, name: str) -> Form:
    """Read a policy's file: TOML where its name says so, else JSON.

    Raises:
        ConfigError: what is wrong with it.

    """
    if len(data) > MAX_BYTES:
        raise ConfigError(f"policy file {name!r} must be at most {MAX_BYTES} bytes, got {len(data)}")
    decode: Callable[..., Form] = msgspec.toml.decode if name.endswith(".toml") else msgspec.json.decode
    try:
        return decode(data, type=Form)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ConfigError(f"policy file {name!r} is wrong: {error}") from None


def digest_of(form: Form) -> str:
    """Return the beginning of the form's SHA-256: another content has another one, whatever its version says."""
    return hashlib.sha256(_encode(form)).hexdigest()[:8]
