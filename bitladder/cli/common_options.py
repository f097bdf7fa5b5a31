"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

Config = Annotated[
    str | None,
    typer.Option("--config", "-c", help="Configuration file (default: $BITLADDER_CONFIG, ./bitladder.toml)."),
]
Url = Annotated[str, typer.Option(envvar="BITLADDER_URL", help="The intake.")]
ApiKey = Annotated[
    str | None,
    typer.Option(envvar="BITLADDER_API_KEY", help="The intake's API key; as a variable, ps does not show it."),
]
DEFAULT_URL = "http://127.0.0.1:8000"
OperatorUrl = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="BITLADDER_URL",
        help="The intake to ask, with a key that has the scope ops. Without it, and with --config: Redis itself.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]
