"""calibrate rollback: a former release is served again."""

from __future__ import annotations

from typing import Annotated

import typer

from calibration.commands.options import AsJson, Config
from calibration.commands.releases import open_store, say_step, show_release
from calibration.publishing.publish_tiers import roll_back


def register(app: typer.Typer) -> None:
    @app.command()
    def rollback(
        to: Annotated[
            int | None,
            typer.Option(help="the version to go back to; 0: the configuration's own tiers; default: the one before"),
        ] = None,
        config: Config = None,
        as_json: AsJson = False,
    ) -> None:
        """Publish a former release again, under a new version; before the first there were the configuration's tiers.

        Example: bitladder calibrate rollback --to 3
        """
        settings, store = open_store(config)
        show_release(roll_back(to, settings, store, say_step), as_json=as_json)
