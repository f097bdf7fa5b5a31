"""calibrate checkpoints: make what the example serves."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from calibration.commands.options import AsJson, progress_console, say
from calibration.environment import example_folder
from calibration.errors import WrongEnvironmentError
from calibration.quantization.build import Checkpoint, CheckpointBuilder, example_job
from calibration.quantization.judging.kind_figures import quality
from calibration.quantization.kernels import can_serve
from calibration.quantization.quantize_task import ENVIRONMENTS
from calibration.quantization.quantizer import Quantizer
from calibration.quantization.recipe import BF16, Recipe, Storage, Toolkit
from calibration.quantization.standard_recipes import TIERS
from calibration.terminal.escape import printable
from calibration.terminal.progress import Steps
from calibration.terminal.tabular import table

AUTO = "auto"
MODULES = {
    Toolkit.LLM_COMPRESSOR: "calibration.quantization.llm_compressor",
    Toolkit.AUTOAWQ: "calibration.quantization.autoawq",
    Toolkit.ENGINE: "calibration.quantization.rounding",
}


_QUICK_NOTE = (
    "{tiers}: quick checkpoints, rounded to the nearest number and not measured. `make checkpoints` makes good ones in "
    "their place (some eight minutes on two idle cores); workers serve them from their next start on"
)


def register(app: typer.Typer) -> None:
    """Add the command; where checkpoints go by default is read from the environment now."""
    cache_folder = example_folder()

    @app.command()
    def checkpoints(
        tiers: Annotated[str, typer.Option(help=f"comma-separated, of {BF16},{','.join(TIERS)}")] = ",".join(TIERS),
        cache: Annotated[Path, typer.Option(help="folder of the checkpoints")] = cache_folder,
        storage: Annotated[
            str, typer.Option(help="packed, rounded, or auto: packed where this machine can serve it")
        ] = AUTO,
        quick: Annotated[
            bool, typer.Option("--quick", help="only round, with the engine's environment, what is not there yet")
        ] = False,
        force: Annotated[bool, typer.Option("--force", help="make them again even if they are finished")] = False,
        as_json: AsJson = False,
    ) -> None:
        """Make the checkpoints of SmolLM2-135M-Instruct that the example serves.

        Example: bitladder calibrate checkpoints --tiers int4,int8
        """
        builder = CheckpointBuilder(
            cache.expanduser().absolute(),
            load_quantizer=partial(load_quantizer, Toolkit.ENGINE) if quick else load_quantizer,
            choose_storage=storage_chooser(storage),
            steps=Steps(progress_console()),
        )
        jobs = [example_job(tier.strip(), is_quick=quick) for tier in tiers.split(",")]
        made = builder.make(jobs, force=force)
        if stand_ins := [checkpoint.manifest.tier for checkpoint in made if checkpoint.manifest.quick]:
            say(_QUICK_NOTE.format(tiers=", ".join(stand_ins)))
        if as_json:
            typer.echo(json.dumps({"cache": str(cache), "tiers": [as_fields(checkpoint) for checkpoint in made]}))
        else:
            typer.echo(as_table(made))


def load_quantizer(toolkit: Toolkit = Toolkit.LLM_COMPRESSOR) -> Quantizer:
    """Import the libraries that make checkpoints; it takes seconds, so that no other module imports them."""
    try:
        module = import_module(MODULES[toolkit])
    except ImportError as error:
        raise WrongEnvironmentError(
            f"module {error.name!r} is missing or broken here; these checkpoints are made with the interpreter of an "
            f"environment of their own: `make {ENVIRONMENTS[toolkit]}`"
        ) from error
    except RuntimeError as error:  # transformers wraps a torchvision that does not fit its torch in one
        raise WrongEnvironmentError(
            f"the libraries of this environment do not fit each other: {error}; `make {ENVIRONMENTS[toolkit]}` "
            "makes one where they do"
        ) from error
    quantizer: Quantizer = module.make_quantizer()
    return quantizer


def storage_chooser(storage: str) -> Callable[[Recipe], Storage]:
    """Return the rule by which a tier is stored packed or rounded."""
    if storage not in (AUTO, *Storage):
        raise typer.BadParameter(f"must be {AUTO}, {' or '.join(Storage)}, got {storage!r}", param_hint="--storage")

    def choose(recipe: Recipe) -> Storage:
        if recipe.tier == BF16:
            return Storage.PACKED
        if storage != AUTO:
            return Storage(storage)
        return Storage.PACKED if can_serve(recipe.packed_needs) else Storage.ROUNDED

    return choose


def as_fields(checkpoint: Checkpoint) -> dict[str, Any]:  # Any: JSON
    manifest = checkpoint.manifest
    return {
        "tier": manifest.tier,
        "recipe": manifest.fingerprint["recipe"]["name"],
        "path": str(checkpoint.path),
        "storage": manifest.fingerprint["storage"],
        "bytes": manifest.weight_bytes,
        "seconds": checkpoint.seconds,
        "skipped": checkpoint.skipped,
        "cpu_s": manifest.cpu_s,
        "peak_mb": manifest.peak_mb,
        "quick": manifest.quick,
        "perplexity": manifest.perplexity and round(manifest.perplexity, 4),
        "reference_perplexity": manifest.reference_perplexity and round(manifest.reference_perplexity, 4),
    }


def as_table(made: list[Checkpoint]) -> str:
    rows = [
        (
            checkpoint.manifest.tier,
            checkpoint.manifest.fingerprint["storage"],
            f"{checkpoint.manifest.weight_bytes / 1e6:.0f}",
            quality(checkpoint.manifest),
            "finished before" if checkpoint.skipped else f"{checkpoint.seconds:.1f}",
            printable(str(checkpoint.path)),
        )
        for checkpoint in made
    ]
    return table(("tier", "stored", "MB", "quality", "seconds", "path"), rows)
