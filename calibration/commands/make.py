"""calibrate make: what `calibrate quantize` becomes in the quantizer's environment, when its checks are passed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from calibration.artifacts.manifest import file_digest
from calibration.commands.checkpoints import as_fields, as_table, load_real_maker, storage_chooser
from calibration.commands.options import progress_console
from calibration.quantization.build import EXAMPLE, Job, Place, Subject, Workshop
from calibration.quantization.corpus import texts_for
from calibration.quantization.recipe import Recipe
from calibration.quantization.recipes import RECIPES
from calibration.quantization.samples import chosen, read_texts
from calibration.quantization.task import Assignment
from calibration.settings import Settings
from calibration.terminal.progress import Steps


def register(app: typer.Typer) -> None:
    @app.command()
    def make() -> None:
        """Make the checkpoint that `calibrate quantize` has checked and put on stdin; not meant to be typed."""
        wanted = Assignment.from_json(sys.stdin.read())
        recipe = RECIPES[wanted.recipe]
        workshop = Workshop(
            wanted.cache,
            load_maker=lambda: load_real_maker(recipe.toolkit),
            choose_storage=storage_chooser(wanted.storage),
            steps=Steps(progress_console()),
            subject=subject_of(wanted.model),
            reference=Place(Settings.from_environ().cache, "XDG_CACHE_HOME"),
        )
        job = Job(
            folder=wanted.folder,
            recipe=recipe,
            weights=wanted.weights,
            texts=texts_of(recipe, wanted.samples),
            memory=wanted.memory,
            option="--out",
        )
        made = workshop.make([job], force=wanted.force)
        if wanted.as_json:
            typer.echo(json.dumps(as_fields(made[0])))
        else:
            Console().print(as_table(made))


def subject_of(model: Path | None) -> Subject:
    """Return the example, or a folder; whether its files changed is told by their sizes and times."""
    if model is None:
        return EXAMPLE
    files: dict[str, Any] = {  # Any: JSON
        path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in sorted(model.glob("*.safetensors"))
    }
    identity = {"folder": str(model), "config": file_digest(model / "config.json"), "weights": files}
    return Subject(identity=identity, folder=model)


def texts_of(recipe: Recipe, samples: Path | None) -> tuple[str, ...]:
    if recipe.mix is None:
        return ()
    return tuple(texts_for(recipe.mix)) if samples is None else chosen(recipe, read_texts(samples))
