"""ladder.toml: which checkpoint each tier serves, proven good by `bitladder calibrate publish`, and its figures.

The file lies beside the configuration and overrides it: `bitladder.settings.load` puts its checkpoints into the tiers.
Nothing here opens a checkpoint: a worker finds out whether the weights are there.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from bitladder.errors import ConfigError
from bitladder.settings.base import ModelName, Name, Section
from bitladder.settings.paths import CACHE

_DIGEST = re.compile(r"[0-9a-f]{64}")
_MAX_BYTES = 1_000_000


def _checked_path(value: str) -> str:
    path = PurePosixPath(value)
    if ".." in path.parts or "\0" in value:
        raise ValueError("must not leave its folder by '..'")
    if not path.is_absolute() and path.parts[:1] != (CACHE,):
        raise ValueError(f"must be an absolute path, or begin with {CACHE}/")
    return value


def _checked_digest(value: str) -> str:
    if not _DIGEST.fullmatch(value):
        raise ValueError("must be 64 hexadecimal digits")
    return value


_Digest = Annotated[str, AfterValidator(_checked_digest), Field(json_schema_extra={"pattern": f"^{_DIGEST.pattern}$"})]
_Number = Annotated[float, Field(allow_inf_nan=False)]


class PublishedFigure(Section):
    """A measured value with its 95 % interval."""

    value: _Number
    low: _Number
    high: _Number
    n: int = Field(ge=1)
    bound: Literal["", "lower"] = ""  # lower: the exact value is at least this

    @model_validator(mode="after")
    def _holds_its_value(self) -> Self:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"value must lie between low and high ({self.low} and {self.high}), got {self.value}")
        return self


class Published(Section):
    """What a published release says of the checkpoint of one tier."""

    version: int = Field(ge=1)
    digest: _Digest
    measured: dict[str, PublishedFigure] = Field({})
    recovery: dict[str, PublishedFigure] = Field({})


class Evaluation(Section):
    """Where the figures come from."""

    report: _Digest  # of the report file
    reference: str
    made_at: str
    sources: dict[str, str] = Field({})
    versions: dict[str, str] = Field({})
    machine: dict[str, str] = Field({})


class ReleaseTier(Section):
    """One tier as it was published."""

    checkpoint: Annotated[str, AfterValidator(_checked_path)]
    digest: _Digest
    measured: dict[str, PublishedFigure] = Field({})
    recovery: dict[str, PublishedFigure] = Field({})
    evaluation: Evaluation


class ReleaseModel(Section):
    """The tiers of one model that were published; others keep what the configuration says."""

    tiers: dict[Name, ReleaseTier] = Field(min_length=1)


class Release(Section):
    """One version of ladder.toml."""

    version: int = Field(ge=1)
    published_at: str
    note: str = ""
    # The version whose content this is, after a rollback; 0: the configuration's own tiers, as before the first one.
    restored: int | None = Field(None, ge=0)
    models: dict[ModelName, ReleaseModel]
    checksum: Literal[""] | _Digest = ""  # release_checksum of all the rest; empty: of a version that wrote none

    @model_validator(mode="after")
    def _restores_an_older_one(self) -> Self:
        if self.restored is not None and self.restored >= self.version:
            raise ValueError(f"restored must be below version ({self.version}), got {self.restored}")
        if bool(self.models) == (self.restored == 0):
            raise ValueError("models must name a model, unless restored is 0 (the configuration's own tiers)")
        return self

    @property
    def content(self) -> int:
        """The version that first said what this one says; 0: the configuration did."""
        return self.version if self.restored is None else self.restored

    def digests(self, model: str) -> dict[str, str]:
        """Return the digest of each tier's checkpoint."""
        tiers = self.models[model].tiers if model in self.models else {}
        return {name: tier.digest for name, tier in tiers.items()}


def read_release(path: Path) -> Release | None:
    """Return the release in a file, None where there is no file.

    Raises:
        ConfigError: it cannot be read, is not one, or was changed by hand. It names the file and what is wrong.

    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigError(f"release {str(path)!r}: must be at most {_MAX_BYTES} bytes")
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
        release = Release.model_validate(tree)
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "release"
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"release {str(path)!r}: {key}: {message}, got {first['input']!r:.80}") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"release {str(path)!r} cannot be read: {error}") from error
    if release.checksum and release.checksum != release_checksum(tree):
        raise ConfigError(
            f"release {str(path)!r}: was changed after it was published (its checksum does not fit): put back what "
            "was published"
        )
    return release


def release_checksum(tree: dict[str, Any]) -> str:  # Any: TOML
    """Return the SHA-256 of what a release file says, without its checksum: not of its layout and comments."""
    fields = {name: value for name, value in tree.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(fields, sort_keys=True, default=str).encode()).hexdigest()


def overlay(tree: dict[str, Any], release: Release, path: Path) -> dict[str, Any]:
    """Put a release's checkpoints into the tree of a configuration file; return what was put there, as such a tree.

    Raises:
        ConfigError: it names a model or a tier that the configuration does not have.

    """
    put: dict[str, Any] = {}
    models = tree.get("models")
    for name, model in release.models.items():
        if not isinstance(models, dict) or name not in models:
            known = ", ".join(models) if isinstance(models, dict) else "none"
            raise ConfigError(f"release {str(path)!r}: models.{name}: there is no such model; there is {known}")
        tiers = {tier["name"]: tier for tier in _tiers(models[name])}
        for tier, released in model.tiers.items():
            if tier not in tiers:
                known = ", ".join(tiers)
                raise ConfigError(
                    f"release {str(path)!r}: models.{name}.tiers.{tier}: there is no such tier in {known}"
                )
            fields = {"checkpoint": released.checkpoint, "published": _published(release, released)}
            tiers[tier] |= fields
            put.setdefault("models", {}).setdefault(name, {}).setdefault("tiers", {})[tier] = fields
    return put


def _tiers(model: object) -> list[dict[str, Any]]:
    tiers = model.get("tiers") if isinstance(model, dict) else None
    return [tier for tier in tiers if isinstance(tier, dict) and "name" in tier] if isinstance(tiers, list) else []


def _published(release: Release, tier: ReleaseTier) -> dict[str, Any]:
    fields = tier.model_dump(include={"digest", "measured", "recovery"})
    return {"version": release.version, **fields}
