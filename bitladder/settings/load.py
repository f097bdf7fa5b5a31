"""The settings: bitladder.toml, the published release over it, environment variables over both, flags over all.

The only file that reads the environment. A wrong value ends in a ConfigError that names key, value and what is
expected.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from bitladder.errors import ConfigError
from bitladder.settings.publish import PublishSettings
from bitladder.settings.release import overlay, read_release
from bitladder.settings.sections import Settings

ENV_PREFIX = "BITLADDER_"
DEFAULT_FILE = "bitladder.toml"
# Not settings of a process: the file itself, and the intake and the key that the client commands use.
OTHER_VARIABLES = (f"{ENV_PREFIX}CONFIG", f"{ENV_PREFIX}URL", f"{ENV_PREFIX}API_KEY")
# What people write here may be a secret, or a secret in the wrong place: it is never shown.
SECRET_KEYS = ("auth.key", "redis.url", "redis.pass", "queue.secret")


class Loaded(BaseModel):
    """Settings, and for every dotted key where its value came from."""

    model_config = ConfigDict(frozen=True)
    settings: Settings
    sources: dict[str, str]
    release_file: Path | None  # where the published release is, or will be


def load_settings(
    file: str | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
    with_release: bool = True,
) -> Loaded:
    """Read file, published release, environment and flags, later ones over earlier ones.

    `file` None: $BITLADDER_CONFIG, else ./bitladder.toml. `flags` maps dotted keys to values. Who publishes a ladder
    reads the settings without it.

    Raises:
        ConfigError: a file cannot be read, a key is unknown, or a value is wrong.

    """
    environ = os.environ if environ is None else environ
    path = Path(file or environ.get(f"{ENV_PREFIX}CONFIG") or DEFAULT_FILE)
    values: dict[str, str] = {}
    tree = _read_toml(path)
    _note_leaves(tree, str(path), values)
    over = [*_from_environ(environ), *((key, value, "flag") for key, value in (flags or {}).items())]
    release_file = _release_file(path, tree, over)
    if with_release and release_file:
        _put_release(tree, release_file, {key for key, _, _ in over}, values)
    for key, value, source in over:
        _put(tree, key, value)
        values[key] = source
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_explain(error, values)) from error
    return Loaded(settings=settings, sources=values, release_file=release_file)


def process_environment() -> dict[str, str]:
    """Return a copy of the environment, for child processes."""
    return dict(os.environ)


def foreign_environment() -> dict[str, str]:
    """Return the environment without our settings, for programs that are not ours: a password may be among them."""
    return {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}


def config_environment(file: str | None) -> dict[str, str]:
    """Return the environment that makes a child process read the same file."""
    return {f"{ENV_PREFIX}CONFIG": str(Path(file).resolve())} if file else {}


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        hint = "name one with --config or BITLADDER_CONFIG; the repository has an example, bitladder.toml"
        raise ConfigError(f"there is no configuration file {str(path)!r}: {hint}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read configuration file {str(path)!r}: {error}") from error


def _release_file(config: Path, tree: Mapping[str, Any], over: list[tuple[str, Any, str]]) -> Path | None:
    """Return where the published release is: its name is a setting itself, and must be known before the others."""
    section = tree.get("publish")
    name = section.get("file") if isinstance(section, dict) else None
    for key, value, _ in over:
        name = value if key == "publish.file" else name
    name = PublishSettings().file if name is None else name
    return config.absolute().parent / name if isinstance(name, str) and name else None


def _put_release(tree: dict[str, Any], file: Path, overruled: set[str], values: dict[str, str]) -> None:
    """Put the published release over the file; what the environment says of a checkpoint it does not speak of."""
    ladder = read_release(file)
    if ladder is None or not ladder.models:  # none, or one that says: as the configuration has it
        return
    put = overlay(tree, ladder, file)
    _note_leaves(put, f"{file}, version {ladder.version}", values)
    for key in overruled:
        if key.startswith("models.") and key.endswith(".checkpoint"):
            _put(tree, key.removesuffix("checkpoint") + "published", None)


def _from_environ(environ: Mapping[str, str]) -> list[tuple[str, Any, str]]:
    """BITLADDER_QUEUE__LEASE_S=5 means queue.lease_s; values that read as TOML are taken as such."""
    found = []
    for name, raw in sorted(environ.items()):
        if name.startswith(ENV_PREFIX) and name not in OTHER_VARIABLES:
            if "__" not in name:
                raise ConfigError(f"{name} is not a setting: expected BITLADDER_CONFIG or BITLADDER_<SECTION>__<KEY>")
            key = name.removeprefix(ENV_PREFIX).lower().replace("__", ".")
            found.append((key, raw, f"environment variable {name}"))
    return [(key, _toml_value(raw), source) for key, raw, source in found]


def _toml_value(raw: str) -> Any:  # noqa: ANN401  (any TOML value)
    if raw[:1] not in '[{"':
        return raw
    try:
        return tomllib.loads(f"v = {raw}")["v"]
    except tomllib.TOMLDecodeError:
        return raw


def _put(tree: dict[str, Any], key: str, value: object) -> None:
    """Set a dotted key; models.<model>.tiers.<name>.<key> finds the tier by its name."""
    *path, last = key.split(".")
    node: Any = tree
    for part in path:
        if isinstance(node, list):
            matches = [item for item in node if isinstance(item, dict) and item.get("name") == part]
            if not matches:
                raise ConfigError(f"{key}: there is no tier named {part!r}")
            node = matches[0]
        else:
            node = node.setdefault(part, {})
        if not isinstance(node, dict | list):
            raise ConfigError(f"{key} is not a setting: {part!r} is a value, not a section")
    if isinstance(node, list):
        raise ConfigError(f"{key} is not a setting: expected a key of one tier behind its name")
    node[last] = value


def _note_leaves(node: object, source: str, into: dict[str, str], prefix: str = "") -> None:
    for key, value in leaves(node, prefix):
        del value
        into[key] = source


def leaves(node: object, prefix: str = "") -> list[tuple[str, object]]:
    """All dotted keys of a tree with their values; tiers are named, not numbered."""
    if isinstance(node, dict) and node:
        return [leaf for key, value in node.items() for leaf in leaves(value, f"{prefix}{key}.")]
    if isinstance(node, list | tuple) and node and all(isinstance(item, dict) and "name" in item for item in node):
        return [leaf for item in node for leaf in leaves(item, f"{prefix}{item['name']}.")]
    return [(prefix.rstrip("."), node)]


def _explain(error: ValidationError, sources: Mapping[str, str]) -> str:
    lines = []
    for item in error.errors(include_url=False):
        key = ".".join(str(part) for part in item["loc"]) or "configuration"
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = "is not a setting; see docs/configuration.md for all of them"
        elif item["type"] == "missing":
            message = "is missing"
        is_quiet = item["type"] in ("missing", "value_error") or key.startswith(SECRET_KEYS)
        given = "" if is_quiet else f", got {item['input']!r:.80}"
        source = f" (from {sources[key]})" if key in sources else ""
        lines.append(f"{key}: {message}{given}{source}")
    return "\n".join(lines)
