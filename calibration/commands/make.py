"""calibrate make: the internal command that `calibrate quantize` runs in the quantizer's environment."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import typer

from calibration.artifacts.digest import file_digest
from calibration.commands.checkpoints import as_fields, as_table, load_quantizer, storage_chooser
from calibration.commands.options import progress_console
from calibration.environment import example_folder
from calibration.quantization.build import EXAMPLE, CheckpointBuilder, CheckpointCache, CheckpointJob, SourceModel
from calibration.quantization.judging.heldout_groups import heldout_groups
from calibration.quantization.quantize_task import QuantizeTask
from calibration.quantization.texts.calibration_texts import first_texts, read_texts
from calibration.quantization.texts.installed_texts import texts_for
from calibration.terminal.progress import Steps


def register(app: typer.Typer) -> None:
    @app.command()
    def make() -> None:
        """Make the checkpoint of the task on stdin, which `calibrate quantize` has checked; an internal command."""
        task = QuantizeTask.from_json(sys.stdin.read())
        recipe = task.recipe
        builder = CheckpointBuilder(
            task.cache,
            load_quantizer=lambda: load_quantizer(recipe.toolkit),
            choose_storage=storage_chooser(task.storage),
            steps=Steps(progress_console()),
            subject=source_model(task.model),
            reference=CheckpointCache(example_folder(), "XDG_CACHE_HOME"),
        )
        job = job_of(task)
        made = builder.make([job], force=task.force)
        if task.as_json:
            typer.echo(json.dumps(as_fields(made[0])))
        else:
            typer.echo(as_table(made))


def source_model(model: Path | None) -> SourceModel:
    """Return the example, or the model in a folder, identified by the sizes and times of its files."""
    if model is None:
        return EXAMPLE
    files: dict[str, Any] = {  # Any: JSON
        path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in sorted(model.glob("*.safetensors"))
    }
    identity = {"folder": str(model), "config": file_digest(model / "config.json"), "weights": files}
    return SourceModel(identity=identity, folder=model)


def job_of(task: QuantizeTask) -> CheckpointJob:
    """Return what is to be made; the samples are those that may be needed."""
    recipe, samples = task.recipe, [] if task.samples is None else read_texts(task.samples)
    return CheckpointJob(
        folder=task.folder,
        recipe=recipe,
        weights=task.weights,
        texts=tuple(texts_for(recipe.mix)) if recipe.mix else (),
        samples=first_texts(recipe.mix, samples) if recipe.mix else (),
        samples_in_all=len(samples),
        groups=heldout_groups(task.heldout),
        standard=task.standard,
        memory=task.memory,
        option="--out",
    )
