"""The option that names the configuration."""

from __future__ import annotations

from typing import Annotated

import typer

Config = Annotated[
    str | None,
    typer.Option("--config", "-c", help="Configuration file (default: $BITLADDER_CONFIG, ./bitladder.toml)."),
]
