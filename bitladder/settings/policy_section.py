"""Settings of routing: the lane and the floor tier of a request."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

import msgspec
from pydantic import AfterValidator, Field, PlainSerializer, PlainValidator, model_validator

from bitladder.policy_forms import Form, LearnedForm, ThresholdForm, digest_of
from bitladder.settings.base import Section

# Policies that need no table: what stands before the colon of their names, and whether anything stands behind it.
_BUILT_IN = {"article": False, "fixed": True, "random": True}
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:=,-]{0,199}")
# Shares are written in decimals.
_ROUNDING = 1e-6
_MAX_SHARES = 16


class LaneSettings(Section):
    """Which lane a priority means, and which lanes overflow when they are long."""

    urgent_from: int = Field(8, ge=1, le=10, description="priorities from here on go to the urgent lane")
    batch_to: int = Field(2, ge=0, le=9, description="priorities up to here go to the batch lane")
    overflow: tuple[Literal["urgent", "normal", "batch"], ...] = Field(
        ("urgent", "normal"),
        description="lanes whose depth makes jobs overflow; others do if their tier is dead or their time runs out",
    )
    eager: tuple[Literal["urgent", "normal", "batch"], ...] = Field(
        ("batch",), description="lanes whose jobs an idle higher tier takes at once, whatever their marks"
    )


def _reference(value: str) -> str:
    if not _REFERENCE.fullmatch(value):
        raise ValueError(
            "must be article, fixed:<tier>, random:<tier>=<share>,..., or the name of a table [policies.*]"
        )
    return value


# Which policy: one of the above.
PolicyName = Annotated[str, AfterValidator(_reference)]


class PolicySettings(Section):
    """How the floor tier is chosen."""

    name: PolicyName = Field(
        "article", description="article, fixed:<tier>, random:<shares>, or a table [policies.NAME]"
    )
    entropy_bits: float = Field(4.5, ge=0, le=8, description="above: the middle tier")
    top_priority: int = Field(8, ge=1, le=10, description="from here on: the top tier")
    top_latency_ms: int = Field(800, ge=0, description="a maximum latency above this: the top tier")


def _form(value: object) -> Form | None:
    if value is None or isinstance(value, ThresholdForm | LearnedForm):
        return value
    raise ValueError("is what `file` holds, and is not to be written here")


class NamedPolicySettings(Section):
    """A policy of the configuration: table [policies.NAME]."""

    kind: Literal["threshold", "learned", "split"] = Field(description="what the table says, below")
    file: str = Field("", description="threshold, learned: a file that says it instead, beside the configuration")
    rules: tuple[dict[str, Any], ...] = Field(
        (), description="threshold: {when, floor} each; the first that holds counts"
    )
    otherwise: str = Field("", description="threshold: the tier where no rule holds")
    version: int = Field(1, ge=1, le=2**31, description="threshold: named in decisions; count it up with every change")
    limit: float | None = Field(
        None, ge=0, le=1e9, description="learned: the predicted loss that a tier may have, instead of the file's limit"
    )
    shares: dict[PolicyName, float] = Field({}, description="split: policies and their shares, which sum to 1")
    drawn_by: Literal["key", "request"] = Field("key", description="split: what is divided; a key keeps its policy")
    form: Annotated[
        Any,
        PlainValidator(_form),
        PlainSerializer(lambda form: form and f"version {form.version}, {digest_of(form)}", when_used="json"),
    ] = Field(None, description="what the file holds; read from there, not to be written")

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        written = bool(self.rules or self.otherwise)
        if self.limit is not None and self.kind != "learned":
            raise ValueError(f"limit belongs to the kind learned, not to {self.kind}")
        if self.kind == "split":
            if self.file or written:
                raise ValueError("shares are all that a policy of the kind split has, and drawn_by")
            shares_of(f"split {dict(self.shares)}", self.shares)
        elif self.shares:
            raise ValueError(f"shares belong to the kind split, not to {self.kind}")
        elif bool(self.file) == written or (self.kind == "learned" and written):
            expected = "its file" if self.kind == "learned" else "either its file, or rules and otherwise"
            raise ValueError(f"kind {self.kind} needs {expected}")
        elif self.form is not None and self.form.__struct_config__.tag != self.kind:
            raise ValueError(
                f"file {self.file!r} holds a policy of the kind {self.form.__struct_config__.tag}, not {self.kind}"
            )
        elif written:
            _ = self.content
        return self

    @property
    def content(self) -> Form:
        """The rules or the prediction, of the file or of the table itself.

        Raises:
            ValueError: the table's rules are wrong, or the file was not read.

        """
        if self.form is not None:
            form: Form = self.form
            return form if self.limit is None else msgspec.structs.replace(form, limit=self.limit)
        if self.file:
            raise ValueError(f"file {self.file!r} was not read")
        tree = {"version": self.version, "rules": self.rules, "otherwise": self.otherwise}
        try:
            return msgspec.convert({"kind": "threshold", **tree}, ThresholdForm)
        except msgspec.ValidationError as error:
            raise ValueError(f"rules: {error}") from None


def shares_of(name: str, shares: Mapping[str, float]) -> Mapping[str, float]:
    """Check shares.

    Raises:
        ValueError: there are none or too many, one is no share, or they do not sum to 1.

    """
    if not 1 <= len(shares) <= _MAX_SHARES:
        raise ValueError(f"{name}: shares must be 1 to {_MAX_SHARES}, got {len(shares)}")
    for what, share in shares.items():
        if not 0 <= share <= 1:  # NaN is neither
            raise ValueError(f"{name}: a share must be from 0 to 1, got {what} = {share:g}")
    if abs((total := sum(shares.values())) - 1) > _ROUNDING:
        raise ValueError(f"{name}: shares must sum to 1, got {total:g}")
    return shares


def random_shares(policy: str) -> Mapping[str, float]:
    """Read random:<tier>=<share>,...

    Raises:
        ValueError: it is none.

    """
    shares: dict[str, float] = {}
    for part in policy.partition(":")[2].split(","):
        tier, _, share = part.partition("=")
        if not tier or tier in shares or not re.fullmatch(r"[01]?(\.[0-9]{1,9})?", share) or not share.strip("."):
            raise ValueError(f"{policy}: shares are written as int4=0.7,fp8=0.3, got {part!r}")
        shares[tier] = float(share)
    return shares_of(policy, shares)


def check_policy(name: str, named: Mapping[str, NamedPolicySettings], ladders: Mapping[str, Sequence[str]]) -> None:
    """Check a policy that requests for these models may get.

    Raises:
        ValueError: there is none of this name, or it names a tier that a model does not have.

    """
    for tier in _tiers(name, named, may_split=True):
        for model, ladder in ladders.items():
            if tier not in ladder:
                raise ValueError(f"{name}: model {model} has tiers {', '.join(ladder)}, not {tier!r}")
    split = named.get(name)
    for arm in split.shares if split and split.shares else (name,):
        if (table := named.get(arm)) and table.kind == "learned":
            _check_order(arm, table.content.named_tiers, ladders)


def _check_order(name: str, tiers: Sequence[str], ladders: Mapping[str, Sequence[str]]) -> None:
    for model, ladder in ladders.items():
        if list(tiers) != sorted(tiers, key=ladder.index):
            raise ValueError(
                f"{name}: its tiers must be in the order of model {model}, {', '.join(ladder)}, got {', '.join(tiers)}"
            )


def check_names(named: Mapping[str, NamedPolicySettings]) -> None:
    """Check tables as such: their names, and what they divide requests between.

    Raises:
        ValueError: a name is one that needs no table; or a split names no policy, or another split.

    """
    for name in named:
        if name in _BUILT_IN:
            raise ValueError(f"policies.{name}: {name} needs no table, and may not be the name of one")
        _tiers(name, named, may_split=True)


def _tiers(policy: str, named: Mapping[str, NamedPolicySettings], *, may_split: bool) -> tuple[str, ...]:
    """Return the tiers that a policy names."""
    kind, _, rest = policy.partition(":")
    table = named.get(policy)
    is_split = kind == "random" or (table is not None and table.kind == "split")
    if is_split and not may_split:
        raise ValueError(f"a split may not divide requests between others: {policy} is one")
    if table is not None:
        if table.kind == "split":
            return tuple(tier for arm in table.shares for tier in _tiers(arm, named, may_split=False))
        return table.content.named_tiers
    if _BUILT_IN.get(kind) is not bool(rest):
        tables = f"; there is {', '.join(named)}" if named else ""
        raise ValueError(
            "must be article, fixed:<tier>, random:<tier>=<share>,... or a table [policies.NAME]"
            f"{tables}, got {policy!r}"
        )
    if kind == "random":
        return tuple(random_shares(policy))
    return (rest,) if kind == "fixed" else ()
