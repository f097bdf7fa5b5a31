"""bitladder keys: make an API key. The key is shown once; the settings keep its hash."""

from __future__ import annotations

from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from bitladder.errors import ConfigError
from bitladder.settings.access import KeySettings, Scope, key_hash, new_key
from bitladder.settings.base import Name

app = typer.Typer(help="Make API keys.", no_args_is_help=True, rich_markup_mode=None)
app.callback()(lambda: None)  # without it typer would take a group of one command for that command


@app.command()
def new(
    tenant: Annotated[str, typer.Option(help="Whose jobs it submits, reads and cancels.")],
    scopes: Annotated[str, typer.Option(help="Some of submit, read, ops.")] = "submit,read",
    name: Annotated[str | None, typer.Option(help="Its name in the settings (default: tenant and a number).")] = None,
) -> None:
    """Make a key: the first line is the key, the others go into bitladder.toml.

    Example: bitladder keys new --tenant acme --scopes submit,read
    """
    key = new_key()
    digest = key_hash(key.encode())
    name = name or f"{tenant}-{digest[:6]}"
    try:
        TypeAdapter(Name).validate_python(name)
        settings = KeySettings.model_validate({"hash": digest, "tenant": tenant, "scopes": scopes.split(",")})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "name"
        raise ConfigError(
            f"{where}: {first['msg'].removeprefix('Value error, ')}, got {first['input']!r:.80}"
        ) from None
    typer.echo(f"{key}\n\n{_snippet(name, digest, settings)}")
    typer.echo("Give the first line to the client: it cannot be shown again. The rest is for bitladder.toml.", err=True)


def _snippet(name: str, digest: str, settings: KeySettings) -> str:
    scopes = ", ".join(f'"{Scope(scope)}"' for scope in settings.scopes)
    # A name may have dots, which a bare TOML key may not.
    return f'[auth.keys."{name}"]\nhash = "{digest}"\ntenant = "{settings.tenant}"\nscopes = [{scopes}]'
