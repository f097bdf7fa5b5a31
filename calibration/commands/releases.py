"""calibrate releases: the published release and those before it."""

from __future__ import annotations

import json
from collections.abc import Mapping

import typer

from bitladder.errors import ConfigError
from bitladder.settings.load import load_settings
from bitladder.settings.release import PublishedFigure, Release
from bitladder.settings.sections import Settings
from calibration.artifacts.metrics import metric_of, quality_metrics
from calibration.commands.options import AsJson, Config, say
from calibration.errors import InputError
from calibration.publishing.release_file import ReleaseStore
from calibration.terminal.escape import printable
from calibration.terminal.tabular import table


def register(app: typer.Typer) -> None:
    @app.command()
    def releases(config: Config = None, as_json: AsJson = False) -> None:
        """Show the published release and those before it, newest first.

        Example: bitladder calibrate releases
        """
        _, store = open_store(config)
        present = store.present()
        releases = [*store.former().values(), *([present] if present else [])]
        if as_json:
            fields = [release.model_dump(mode="json") for release in reversed(releases)]
            typer.echo(json.dumps({"file": str(store.file), "releases": fields}))
            return
        if not releases:
            say(f"nothing is published in {store.file}: what the configuration says is served")
            return
        typer.echo(_as_table(list(reversed(releases)), present))


def open_store(config: str | None) -> tuple[Settings, ReleaseStore]:
    """Return the settings without the published release, and where that is.

    Raises:
        InputError: the configuration is wrong, or has no place for releases.

    """
    try:
        loaded = load_settings(config, with_release=False)
    except ConfigError as error:
        raise InputError(str(error)) from error
    if loaded.release_file is None:
        raise InputError("publish.file is empty: expected the name of the file to publish to")
    return loaded.settings, ReleaseStore(loaded.release_file, loaded.settings.publish.keep)


def say_step(tier: str, text: str) -> None:
    """Print on stderr what is being done with a tier."""
    say(f"{tier}: {text}")


def show_release(release: Release, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(release.model_dump(mode="json")))
    else:
        typer.echo(_as_table([release], release))


def _rows(release: Release) -> list[tuple[str, str, str]]:
    """Return tier, checkpoint and accuracy recovery; one row for a release that names no tier."""
    table_rows = []
    for model, model_release in release.models.items():
        for tier, entry in model_release.tiers.items():
            table_rows.append((f"{model} {tier}", f"{entry.checkpoint} {entry.digest[:8]}", kept(entry.recovery)))
    return table_rows or [("all", "as the configuration has it", "")]


def kept(recovery: Mapping[str, PublishedFigure]) -> str:
    """Return the lowest accuracy recovery of each quality metric, over all kinds of text."""
    lowest = {
        family: min((figure.value for name, figure in recovery.items() if metric_of(name) == family), default=None)
        for family in quality_metrics()
    }
    return ", ".join(f"{family} {value:.3f}" for family, value in lowest.items() if value is not None)


def _as_table(releases: list[Release], present: Release | None) -> str:
    rows = []
    for release in releases:
        mark = "*" if present is not None and release.version == present.version else ""
        for tier, checkpoint, recovery in _rows(release):
            row = (f"{release.version}{mark}", tier, release.published_at, checkpoint, recovery, release.note)
            rows.append(tuple(map(printable, row)))
    columns = ("version", "tier", "published", "checkpoint", "kept at least", "note")
    return table(columns, rows, title="* is served")
