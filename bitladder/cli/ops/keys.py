"""bitladder keys: make, list and revoke API keys. A key is shown once; files keep its hash."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from bitladder.cli.common_options import AsJson, Config
from bitladder.cli.ops.durations import span_s
from bitladder.errors import ConfigError, NotFoundError
from bitladder.settings.access import KeySettings, key_hash, new_key
from bitladder.settings.base import Name
from bitladder.settings.explain import line_in
from bitladder.settings.keys_file import changing, table_of
from bitladder.settings.load import Loaded, load_settings
from calibration.terminal.tabular import table

app = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def new(
    tenant: Annotated[str, typer.Option(help="Whose jobs it submits, reads and cancels.")],
    scopes: Annotated[
        str, typer.Option(help="Some of submit, read, ops:read, ops:write, and ops, which means both.")
    ] = "submit,read",
    name: Annotated[
        str | None, typer.Option(help="Its name in the settings (default: tenant and some of the hash).")
    ] = None,
    expires: Annotated[str | None, typer.Option(help="When it expires: 90d, 12h, 4w or 2027-01-31 (UTC).")] = None,
    printed: Annotated[bool, typer.Option("--print", help="Write no file: print its table, to be put there.")] = False,
    config: Config = None,
) -> None:
    """Make a key, print it on stdout, and write its hash into the file of keys, which running intakes take.

    Example: bitladder keys new --tenant acme --scopes submit,read --expires 90d
    """
    key = new_key()
    digest = key_hash(key.encode())
    name = name or f"{tenant}-{digest[:6]}"
    fields = {"hash": digest, "tenant": tenant, "scopes": scopes.split(","), "created": datetime.now(UTC)}
    settings = _checked(name, fields | {"expires": _moment(expires) if expires else None})
    if printed:
        typer.echo(f"{key}\n\n{table_of(name, settings)}")
        place = "The rest is for bitladder.toml."
    else:
        file = _file_without(name, config)
        with changing(file) as keys:
            if name in keys:  # another command was quicker
                raise _taken(name, str(file))
            keys[name] = settings
        typer.echo(key)
        place = f"{name} is in {file}; running intakes take it within a second or two."
    typer.echo(f"Give the first line to the client: it cannot be shown again. {place}", err=True)


@app.command("list")
def list_keys(as_json: AsJson = False, config: Config = None) -> None:
    """List the keys: names, tenants, scopes and times, never the keys themselves nor their hashes.

    Example: bitladder keys list
    """
    loaded = load_settings(config, with_keys=True)
    rows = [
        {
            "name": name,
            "tenant": key.tenant,
            "scopes": ",".join(key.scopes),
            "created": _shown(key.created),
            "expires": _shown(key.expires),
            "state": "expired" if key.expires and key.expires <= datetime.now(UTC) else "valid",
            "source": _source(loaded, name),
        }
        for name, key in sorted(loaded.settings.auth.keys.items())
    ]
    columns = ("name", "tenant", "scopes", "created", "expires", "state", "source")
    expired = [index for index, row in enumerate(rows) if row["state"] == "expired"]
    typer.echo(
        json.dumps(rows, indent=2) if as_json else table(columns, [list(row.values()) for row in rows], red=expired)
    )


@app.command()
def revoke(
    names: Annotated[list[str], typer.Argument(help="Names of keys.")],
    at: Annotated[str | None, typer.Option(help="Later: when they expire, as 7d, 12h or 2027-01-31 (UTC).")] = None,
    config: Config = None,
) -> None:
    """Revoke keys: running intakes refuse them within a second or two. Requests that are open go on to their end.

    Example: bitladder keys revoke acme-1f2e3d
    """
    loaded = load_settings(config, with_keys=True)
    file, known = loaded.keys_file, loaded.settings.auth.keys
    moment = _moment(at) if at else None
    for name in names:
        if name not in known:
            raise NotFoundError(f"there is no key named {name!r}; there is {', '.join(known) or 'none'}")
        source = _source(loaded, name)
        if source != str(file):
            place = f"{source}{line_in(source, f'auth.keys.{name}')}"
            raise ConfigError(f"key {name} is in {place}: change it there; running intakes take that as well")
    with changing(Path(str(file))) as keys:
        for name in names:
            key = keys.pop(name, None)  # None: another command was quicker
            if moment and key:
                keys[name] = key.model_copy(update={"expires": moment})
    typer.echo(f"{', '.join(names)} {f'expires at {_shown(moment)}' if moment else 'revoked'}")
    if set(names) == set(known) and not moment:
        typer.echo("no key is left: intakes refuse every request that needs one, and do not start", err=True)


def _checked(name: str, fields: dict[str, object]) -> KeySettings:
    try:
        TypeAdapter(Name).validate_python(name)
        return KeySettings.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "name"
        raise ConfigError(
            f"{where}: {first['msg'].removeprefix('Value error, ')}, got {first['input']!r:.80}"
        ) from None


def _file_without(name: str, config: str | None) -> Path:
    """Return the file of keys, which has no key of this name yet."""
    loaded = load_settings(config, with_keys=True)
    if loaded.keys_file is None:
        raise ConfigError("auth.keys_file is empty: name a file there, or use --print and put the table where keys are")
    if name in loaded.settings.auth.keys:
        raise _taken(name, _source(loaded, name))
    return loaded.keys_file


def _taken(name: str, place: str) -> ConfigError:
    return ConfigError(f"there is a key named {name} already, in {place}: choose another name")


def _source(loaded: Loaded, name: str) -> str:
    """Return the file that a key is in, or the variable."""
    return next((loaded.sources[key] for key in (f"auth.keys.{name}.hash", "auth.keys") if key in loaded.sources), "")


def _moment(text: str) -> datetime:
    """Read a time that is to come: a span from now, or a date."""
    if (seconds := span_s(text)) is not None:
        return datetime.now(UTC) + timedelta(seconds=seconds)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"a time must be a span like 45m, 12h, 90d or 4w, or a date like 2027-01-31, got {text!r}"
        ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if moment <= datetime.now(UTC):
        raise ConfigError(f"a time must lie in the future, got {text!r}")
    return moment


def _shown(moment: datetime | None) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if moment else ""
