"""calibrate sample: prompts from S3, files or the capture -> a calibration set and a held-out set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from calibration.artifacts.folder import require_outside
from calibration.commands.configuration import load_configuration
from calibration.commands.options import MAX_CHARS, AsJson, Config, MaxChars, progress_console, say
from calibration.errors import InputError, WrongEnvironmentError
from calibration.sample.captured import Capture
from calibration.sample.reading import Reading
from calibration.sample.run_sampling import Sampled, SampleOptions, sample
from calibration.sample.sets import SKIPPED
from calibration.sample.source import LocalFiles, Packaged, Source
from calibration.terminal.escape import printable
from calibration.terminal.tabular import table

Group = Annotated[str, typer.Option(help="field of a record that is a stratum, such as route or metadata.tenant")]
_CAPTURE, PACKAGED = "capture", Packaged.name


def register(app: typer.Typer) -> None:
    @app.command("sample")
    def command(
        source: Annotated[
            str, typer.Option(help="s3://bucket/prefix, a file or folder of JSON or JSONL (.gz), capture, or packaged")
        ] = PACKAGED,
        out: Annotated[Path, typer.Option(help="folder of the set")] = Path("var/calibration/sample"),
        count: Annotated[int, typer.Option(min=1, help="texts to calibrate with")] = 512,
        heldout: Annotated[int, typer.Option(min=1, help="texts to measure on")] = 128,
        min_prompts: Annotated[int, typer.Option("--least", min=2, help="fewer different prompts are refused")] = 30,
        max_chars: MaxChars = MAX_CHARS,
        memory_mb: Annotated[int, typer.Option(min=1, help="for texts that may be chosen")] = 256,
        seed: Annotated[int, typer.Option(help="another seed, another sample; the split stays")] = 0,
        group: Group = "",
        endpoint_url: Annotated[str | None, typer.Option(help="of an S3 server that is not Amazon's")] = None,
        force: Annotated[bool, typer.Option("--force", help="sample again even if the set is finished")] = False,
        config: Config = None,
        as_json: AsJson = False,
    ) -> None:
        """Take a mixed sample of prompts, without near-duplicates, and split it into calibration and held-out texts.

        Example: bitladder calibrate sample --source s3://logs/prompts/2026/ --out var/calibration/november
        """
        plan = SampleOptions(
            count=count,
            heldout=heldout,
            min_prompts=min_prompts,
            max_chars=max_chars,
            memory_mb=memory_mb,
            seed=seed,
            group=group,
        )
        folder, opened = out.expanduser().resolve(), open_source(source, endpoint_url, config, group)
        if isinstance(opened, LocalFiles):
            require_outside(opened.path, "--source", folder, "--out")  # which is replaced once the source was read
            require_outside(folder, "--out", opened.path, "--source")  # or the next run reads what this one wrote
        with Reading(progress_console(), opened.sizes() if isinstance(opened, LocalFiles) else None) as reading:
            made = sample(opened, plan, folder, force=force, on_progress=reading.show)
        _show(made, opened, as_json=as_json)


def _show(made: Sampled, source: Source, *, as_json: bool) -> None:
    for note in _notes(made, source):
        say(note)
    if as_json:
        typer.echo(json.dumps({"folder": str(made.folder), "finished_before": made.skipped, **made.manifest}))
        return
    if made.skipped:
        say(f"finished before, {made.manifest['made_at']}; --force samples again")
    typer.echo(_as_table(made.manifest))
    typer.echo(str(made.folder))


def _notes(made: Sampled, source: Source) -> Iterator[str]:
    """Yield what the figures do not show."""
    for file in made.manifest["files"]:
        if file["lines"] == 0 and file["name"] != SKIPPED:
            yield f"{file['name']} is empty: so few prompts were found that none fell to it"
    if list(made.manifest["strata"].get("group", ())) == [""]:
        field = printable(made.manifest["request"]["group"])
        yield f"no record has a field {field!r} with a text, a number or a truth value: all are one group"
    for lost in made.manifest["not_understood"]:
        yield f"left out: {lost}"
    if isinstance(source, LocalFiles) and (left_out := source.left_out()):
        yield f"left out: {len(left_out):,} files that are not named as JSON is, such as {printable(left_out[0].name)}"


def open_source(source: str, endpoint_url: str | None, config: str | None, group: str = "") -> Source:
    """Return the source that an option names."""
    if source.startswith("s3:"):
        bucket, _, prefix = source.removeprefix("s3://").partition("/")
        if not source.startswith("s3://") or not bucket:
            raise InputError(f"--source must be s3://bucket/prefix, got {source!r}")
        try:
            s3 = import_module("calibration.sample.s3")
        except ModuleNotFoundError as error:
            raise WrongEnvironmentError(
                f"S3 needs module {error.name!r}: pip install 'bitladder[calibrate]'"
            ) from error
        s3_source: Source = s3.S3Prefix(bucket, prefix, endpoint_url, group)
        return s3_source
    if endpoint_url:
        raise InputError(f"--endpoint-url is for s3:// sources, got --source {source!r}")
    if group and source == PACKAGED:
        raise InputError(f"--group is for records of one's own, got --source {source}: its texts have no fields")
    if source == PACKAGED:
        return Packaged()
    if source == _CAPTURE:
        return Capture(Path(load_configuration(config).capture.folder).expanduser().resolve(), group)
    return LocalFiles(Path(source).expanduser().resolve(), group)


def _as_table(manifest: dict[str, Any]) -> str:  # Any: JSON
    rows = []
    for name, value in manifest["counts"].items():
        shown = (
            ", ".join(f"{times} {reason}" for reason, times in value.items())
            if isinstance(value, dict)
            else f"{value:,}"
        )
        rows.append((name.replace("_", " "), shown or "0"))
    for part, texts_by_key in manifest["strata"].items():
        rows.append((f"by {part}", ", ".join(f"{key or '?'} {value}" for key, value in texts_by_key.items())))
    for file in manifest["files"]:
        rows.append((file["name"], f"{file['lines']} lines, sha256 {file['sha256'][:16]}"))
    return table(
        ("what", "how many"), [tuple(map(printable, row)) for row in rows], title=printable(manifest["source"])
    )
