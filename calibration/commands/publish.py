"""calibrate publish: make measured checkpoints the ones that are served."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calibration.commands.options import AsJson, Config
from calibration.commands.releases import open_store, say_step, show_release
from calibration.publishing.incumbent import Waivers
from calibration.publishing.publish_tiers import Choice
from calibration.publishing.publish_tiers import publish as publish_release


def register(app: typer.Typer) -> None:
    @app.command()
    def publish(
        report: Annotated[Path, typer.Argument(help="report.json of `bitladder calibrate evaluate`")],
        tiers: Annotated[
            str, typer.Option(help="comma-separated; default: all that were measured, but the reference")
        ] = "",
        without_incumbent: Annotated[
            bool, typer.Option("--without-incumbent", help="replace what is served without a comparison with it")
        ] = False,
        accept_worse: Annotated[
            bool, typer.Option("--accept-worse", help="replace what is served by what is worse than it")
        ] = False,
        note: Annotated[str, typer.Option(help="why, for those who read the history")] = "",
        config: Config = None,
        as_json: AsJson = False,
    ) -> None:
        """Make measured checkpoints the ones that are served; exit status 1 when one is refused.

        Example: bitladder calibrate publish report.json --tiers int4
        """
        settings, store = open_store(config)
        names = [name.strip() for name in tiers.split(",") if name.strip()]
        waivers = Waivers(without_incumbent=without_incumbent, accept_worse=accept_worse)
        choice = Choice(report=report.expanduser(), tiers=names, note=note, waivers=waivers)
        release = publish_release(choice, settings, store, say_step)
        show_release(release, as_json=as_json)
