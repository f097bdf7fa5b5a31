"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

Config = Annotated[
    str | None,
    typer.Option("--config", "-c", help="Configuration file (default: $BITLADDER_CONFIG, ./bitladder.toml)."),
]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]
