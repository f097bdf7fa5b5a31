"""The settings: bitladder.toml, the published release over it, environment variables over both, flags over all.

The only file that reads the environment. A wrong value ends in a ConfigError that names key, value, where the value
came from and what is expected.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from bitladder.errors import ConfigError
from bitladder.policy_forms import MAX_BYTES, read_form
from bitladder.settings.access import AuthSettings
from bitladder.settings.explain import did_you_mean_variable, explain, leaves
from bitladder.settings.keys_file import read_keys
from bitladder.settings.paths import checkpoint_cache
from bitladder.settings.publish_section import PublishSettings
from bitladder.settings.release import overlay, read_release
from bitladder.settings.sections import Settings

ENV_PREFIX = "BITLADDER_"
DEFAULT_FILE = "bitladder.toml"
# Not settings of a process: the file itself, and the intake and the key that the client commands use.
_OTHER_VARIABLES = (f"{ENV_PREFIX}CONFIG", f"{ENV_PREFIX}URL", f"{ENV_PREFIX}API_KEY")
# Settings that name a file which is a part of the configuration.
_PARTS = {"publish": "file", "auth": "keys_file"}
# Values of these are taken from the environment as they are, whatever they begin with.
_PLAIN_KEYS = ("redis.password", "redis.url")
# Files and folders that may be named from the configuration file's folder on, by section.
_FILES = {
    "redis": ("data_dir", "password_file", "ca_file", "cert_file", "key_file"),
    "vllm": ("python",),
    "cascade": ("calibration",),
    "files": ("store",),
}
_NOT_IN_VARIABLES = re.compile("[^a-z0-9]+")
# A dotted key, its value, and where it came from.
_Override = tuple[str, Any, str]


class Loaded(BaseModel):
    """Settings, and for every dotted key where its value came from."""

    model_config = ConfigDict(frozen=True)
    settings: Settings
    sources: dict[str, str]
    release_file: Path | None  # where the published release is, or will be
    config_file: Path
    keys_file: Path | None = None  # where the API keys are, or will be; None: this process needs none
    policy_files: tuple[Path, ...] = ()


def load_settings(
    file: str | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
    with_release: bool = True,
    with_keys: bool = False,
) -> Loaded:
    """Read file, published release, environment and flags, later ones over earlier ones.

    `file` None: $BITLADDER_CONFIG, else ./bitladder.toml. `flags` maps dotted keys to values. A command that publishes
    a release reads the settings without it. Keys are for intakes: other processes may not be allowed to read them.

    Raises:
        ConfigError: a file cannot be read, a key is unknown, or a value is wrong.

    """
    environ = os.environ if environ is None else environ
    path = Path(file or environ.get(f"{ENV_PREFIX}CONFIG") or DEFAULT_FILE)
    sources: dict[str, str] = {}
    tree = _read_toml(path)
    _note_leaves(tree, str(path), sources)
    overrides = [*_from_environ(environ), *((key, value, "flag") for key, value in (flags or {}).items())]
    release_file = _file_beside(path, tree, overrides, "publish", PublishSettings().file)
    keys_file = _file_beside(path, tree, overrides, "auth", AuthSettings().keys_file) if with_keys else None
    if keys_file:
        _put_keys(tree, keys_file, sources)
    if with_release and release_file:
        _put_release(tree, release_file, {key for key, _, _ in overrides}, sources)
    for key, value, source in [*_defaults(tree, environ), *overrides]:
        sources[_put(tree, key, value, source)] = source
    _resolve_files(tree, path.absolute().parent)
    policy_files = _put_policies(tree, path.absolute().parent)
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(explain(error, tree, sources, str(path))) from None  # it would repeat the values
    return Loaded(
        settings=settings,
        sources=sources,
        release_file=release_file,
        config_file=path,
        keys_file=keys_file,
        policy_files=policy_files,
    )


def process_environment() -> dict[str, str]:
    """Return a copy of the environment, for child processes."""
    return dict(os.environ)


def foreign_environment() -> dict[str, str]:
    """Return the environment for programs that are not ours.

    Without our settings, as a password may be among them; and Python's imports nothing from the current folder.
    """
    ours = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
    return {**ours, "PYTHONSAFEPATH": "1"}


def config_environment(file: str | None) -> dict[str, str]:
    """Return the environment that makes a child process read the same file."""
    return {f"{ENV_PREFIX}CONFIG": str(Path(file).resolve())} if file else {}


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        hint = "name one with --config or BITLADDER_CONFIG; the repository has an example, bitladder.toml"
        raise ConfigError(f"there is no configuration file {str(path)!r}: {hint}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"cannot read configuration file {str(path)!r}: {error}") from error


def _defaults(tree: Mapping[str, Any], environ: Mapping[str, str]) -> list[_Override]:
    """Return the defaults that depend on the environment."""
    vllm = tree.get("vllm", {})
    if not environ.get("XDG_CACHE_HOME") or not isinstance(vllm, dict) or "cache_dir" in vllm:
        return []
    return [("vllm.cache_dir", str(checkpoint_cache(environ)), "default, below $XDG_CACHE_HOME")]


def _resolve_files(tree: dict[str, Any], folder: Path) -> None:
    """Make relative paths begin at the configuration file's folder, from wherever its processes are started."""
    for section, name in (("redis", "data_dir"), ("files", "store")):
        if isinstance(table := tree.setdefault(section, {}), dict):
            table.setdefault(name, getattr(Settings.model_fields[section].default, name))
    sections = [(name, tree[name]) for name in _FILES if isinstance(tree.get(name), dict)]
    models = tree.get("models")
    for model in models.values() if isinstance(models, dict) else ():
        if isinstance(model, dict) and isinstance(model.get("redis"), dict):
            sections.append(("redis", model["redis"]))
    for section, values in sections:
        for name in _FILES[section]:
            value = values.get(name)
            # A program's name alone is looked for in PATH, and a bucket is no folder.
            if isinstance(value, str) and value and (name != "python" or "/" in value) and "://" not in value:
                values[name] = str(folder / os.path.expanduser(value))  # Path.expanduser raises for an unknown user


def _file_beside(
    config: Path, tree: Mapping[str, Any], overrides: list[_Override], section: str, default: str
) -> Path | None:
    """Return a file that a setting names: it is read itself, and must be known before the other settings."""
    key = _PARTS[section]
    table = tree.get(section)
    name = table.get(key, default) if isinstance(table, dict) else default
    for overridden, value, _ in overrides:
        name = value if overridden == f"{section}.{key}" else name
    return config.absolute().parent / name if isinstance(name, str) and name else None


def _put_keys(tree: dict[str, Any], file: Path, sources: dict[str, str]) -> None:
    """Put the keys of their file beside the configuration's own."""
    keys = read_keys(file)
    auth = tree.setdefault("auth", {})
    if keys is None or not isinstance(auth, dict) or not isinstance(auth.setdefault("keys", {}), dict):
        return
    if both := sorted(auth["keys"].keys() & keys.keys()):
        raise ConfigError(f"auth.keys.{both[0]} is in the configuration and in {str(file)!r}: rename one of them")
    auth["keys"] |= keys
    _note_leaves(keys, str(file), sources, "auth.keys.")
    if "required" not in auth:  # also where the last key was revoked: that opens the intake to nobody
        _put(tree, "auth.required", True, str(file))
        sources["auth.required"] = str(file)


def _put_release(tree: dict[str, Any], file: Path, overridden: set[str], sources: dict[str, str]) -> None:
    """Put the published release over the file; its figures are not those of a checkpoint that an override names."""
    release = read_release(file)
    if release is None or not release.models:  # none, or one that says: as the configuration has it
        return
    put = overlay(tree, release, file)
    _note_leaves(put, f"{file}, version {release.version}", sources)
    for key in overridden:
        if key.startswith("models.") and key.endswith(".checkpoint"):
            _put(tree, key.removesuffix("checkpoint") + "published", None, "")


def _put_policies(tree: dict[str, Any], folder: Path) -> tuple[Path, ...]:
    """Put what the files of policies hold beside their names."""
    tables = tree.get("policies")
    files = []
    for name, table in tables.items() if isinstance(tables, dict) else ():
        file = table.get("file") if isinstance(table, dict) else None
        if not isinstance(file, str) or not file:
            continue
        files.append(folder / os.path.expanduser(file))
        try:
            with files[-1].open("rb") as opened:
                table["form"] = read_form(opened.read(MAX_BYTES + 1), file)
        except (OSError, ValueError) as error:  # the latter: a zero byte in its name
            why = getattr(error, "strerror", error)
            raise ConfigError(f"policies.{name}.file: cannot read {str(files[-1])!r}: {why}") from None
        except ConfigError as error:
            raise ConfigError(f"policies.{name}.file: {error}") from None
    return tuple(files)


def _from_environ(environ: Mapping[str, str]) -> list[_Override]:
    """BITLADDER_QUEUE__LEASE_S=5 means queue.lease_s; values that read as TOML are taken as such."""
    variables = []
    for name, raw in sorted(environ.items()):
        if name.startswith(ENV_PREFIX) and name not in _OTHER_VARIABLES:
            if "__" not in name:
                hint = did_you_mean_variable(name, ENV_PREFIX)
                raise ConfigError(
                    f"{name} is not a setting{hint}; expected {ENV_PREFIX}CONFIG or {ENV_PREFIX}<SECTION>__<KEY>"
                )
            key = name.removeprefix(ENV_PREFIX).lower().replace("__", ".")
            variables.append((key, raw, f"environment variable {name}"))
    return [(key, raw if key in _PLAIN_KEYS else _toml_value(raw), source) for key, raw, source in variables]


def _toml_value(raw: str) -> Any:  # noqa: ANN401  (any TOML value)
    if raw[:1] not in '[{"':
        return raw
    try:
        return tomllib.loads(f"v = {raw}")["v"]
    except tomllib.TOMLDecodeError:
        return raw


def _put(tree: dict[str, Any], key: str, value: object, source: str) -> str:
    """Set a dotted key, and return it in the tree's own spelling; models.<model>.tiers.<name>.<key> finds the tier."""
    *path, last = _path(tree, key, source)
    node: Any = tree
    for index, part in enumerate(path):
        if isinstance(node, list):
            node = _tier(node, part, key, source)
            path[index] = str(node.get("name")) if isinstance(node, dict) else part
        elif part == "tiers" and path[0] == "models" and part not in node and path[index + 1 :]:
            known = ", ".join(tree["models"].keys() - {path[index - 1]}) or "none"
            raise ConfigError(f"{key}: there is no model {path[index - 1]!r}; there is {known} (from {source})")
        else:
            node = node.setdefault(part, {})
        if not isinstance(node, dict | list):
            raise ConfigError(f"{key} is not a setting: {part!r} is a value, not a section (from {source})")
    if isinstance(node, list):
        raise ConfigError(f"{key} is not a setting: expected a key of one tier behind its name (from {source})")
    node[last] = value
    return ".".join((*path, last))


def _path(tree: dict[str, Any], key: str, source: str) -> list[str]:
    """Return the parts of a dotted key; the name of a model may have dots in it."""
    section, _, rest = key.partition(".")
    models = tree.get("models")
    if section != "models" or not isinstance(models, dict):
        return key.split(".")
    whole = [name for name in models if f"{rest}.".startswith(f"{name}.")]
    name = max(whole, key=len) if whole else rest.partition(".")[0]
    below = rest[len(name) + 1 :]
    return [section, _spelled(name, models, key, source), *(below.split(".") if below else ())]


def _spelled(name: str, names: Iterable[str], key: str, source: str) -> str:
    """Return which of these names is meant. The names of variables have capitals, digits and '_' only."""
    if name in names:
        return name
    alike = [other for other in names if _NOT_IN_VARIABLES.sub("_", other.lower()) == name]
    if len(alike) > 1:
        raise ConfigError(f"{key}: {name!r} may mean {' or '.join(alike)}: set it in the file (from {source})")
    return alike[0] if alike else name


def _tier(tiers: list[Any], name: str, key: str, source: str) -> Any:  # noqa: ANN401  (a table, or what should be one)
    by_name = {str(tier["name"]): tier for tier in tiers if isinstance(tier, dict) and "name" in tier}
    name = _spelled(name, by_name, key, source)
    if name not in by_name:
        raise ConfigError(f"{key}: there is no tier {name!r}; there is {', '.join(by_name)} (from {source})")
    return by_name[name]


def _note_leaves(node: object, source: str, into: dict[str, str], prefix: str = "") -> None:
    for key, value in leaves(node, prefix):
        del value
        into[key] = source
