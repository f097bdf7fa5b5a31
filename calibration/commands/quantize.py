"""calibrate quantize: check that a recipe can be carried out, then run it in the quantizer's environment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from calibration.artifacts.folder import require_outside, require_replaceable
from calibration.artifacts.manifest import was_made
from calibration.commands.checkpoints import AUTO
from calibration.commands.configuration import load_configuration
from calibration.commands.make import source_model
from calibration.commands.options import AsJson, Config, say
from calibration.environment import example_folder
from calibration.errors import InputError, RecipeError
from calibration.preflight import (
    ResourceNeeds,
    check_hardware,
    check_kernels,
    check_room,
    inspect_model,
    plan,
)
from calibration.quantization.available_memory import available_memory
from calibration.quantization.estimate import Weights, making_s, measuring_s
from calibration.quantization.example import SMOLLM2
from calibration.quantization.quantize_task import QuantizeTask, exec_in, find_interpreter
from calibration.quantization.recipe import BF16, Recipe, Storage, Toolkit, fingerprint, recipe_hash
from calibration.quantization.standard_recipes import EXAMPLE, TIERS, find_recipe
from calibration.quantization.texts.calibration_texts import check_enough, first_texts, read_texts
from calibration.sample.heldout_kinds import heldout_by_kind
from calibration.sample.sets import checked_samples
from calibration.terminal.progress import duration
from calibration.texts.packaged import KINDS

Model = Annotated[Path | None, typer.Option(help="folder of a bf16 model in safetensors; default: the example")]
Samples = Annotated[
    Path | None, typer.Option(help="JSONL with `text` or `prompt`, or what `calibrate sample` wrote; default: packaged")
]
_GeneralShare = Annotated[
    float | None, typer.Option(help="share of general text in the tokens; default: the recipe's", min=0, max=0.9)
]
_MemoryGb = Annotated[float | None, typer.Option(help="weights above so many GB stay on disk", min=0.001, max=1e6)]
# Of the hash of all that a checkpoint is made of, in the name of its folder.
_NAME_DIGITS = 12
# What loading the libraries, and all else that no size decides, takes of the time.
_LOADING_S = 20


def register(app: typer.Typer) -> None:
    @app.command()
    def quantize(
        tier: Annotated[str, typer.Option(help=f"of {', '.join(TIERS)}")],
        recipe: Annotated[str | None, typer.Option(help="of docs/calibration/quantize.md; default: the tier's")] = None,
        model: Model = None,
        samples: Samples = None,
        out: Annotated[Path | None, typer.Option(help="folder of the checkpoint; default: in the cache")] = None,
        general_share: _GeneralShare = None,
        memory_gb: _MemoryGb = None,
        python: Annotated[Path | None, typer.Option(help="interpreter of the recipe's environment")] = None,
        force: Annotated[bool, typer.Option("--force", help="make it again even if it is finished")] = False,
        config: Config = None,
        as_json: AsJson = False,
    ) -> None:
        """Quantize a model by a recipe; what makes it impossible is reported before the work begins.

        Example: bitladder calibrate quantize --tier int4 --model models/llama-8b --samples var/samples
        """
        standard = find_recipe(tier, recipe, is_example=model is None)
        chosen_recipe = _mixed(standard, samples, general_share)
        for hardware in _hardware_of(tier, config):
            check_hardware(chosen_recipe, hardware)
        weights = SMOLLM2 if model is None else inspect_model(model)
        checked = samples and checked_samples(samples.expanduser().absolute())
        folder = (out or default_folder(chosen_recipe, model, checked)).expanduser().resolve()
        task = QuantizeTask(
            recipe=chosen_recipe,
            cache=folder.parent,
            folder=folder.name,
            weights=weights,
            storage=AUTO if model is None else Storage.PACKED,
            model=model and model.expanduser().absolute(),
            samples=checked,
            heldout=_heldout_of(checked),
            standard=default_folder(standard, model) if samples else None,
            memory=None if memory_gb is None else int(memory_gb * 1e9),
            force=force,
            as_json=as_json,
        )
        _check(task)
        exec_in(find_interpreter(chosen_recipe.toolkit, python), task)


def _check(task: QuantizeTask) -> None:
    """Raise what makes the task impossible; else print what it will take."""
    recipe, weights, folder = task.recipe, task.weights, task.cache / task.folder
    model = task.model or example_folder() / BF16  # the example's
    for path, option in ((model, "--model"), (task.samples, "--samples")):
        if path is not None:
            require_outside(folder, "--out", path, option)
            require_outside(path, option, folder, "--out")
    require_replaceable(folder, "--out", was_made)  # files that a user added count only if it is made again
    if recipe.toolkit is Toolkit.AUTOAWQ and task.memory is not None:
        raise RecipeError(f"recipe {recipe.name}: AutoAWQ keeps all weights in memory; drop --memory-gb")
    check_kernels(recipe, weights)
    if task.samples is not None:
        samples = read_texts(task.samples)
        check_enough(recipe, samples, max(weights.shape.input_widths))
        if recipe.mix is None:
            say(f"recipe {recipe.name} calibrates on no samples: none of the {len(samples):,} is used")
    needs = plan(recipe, weights, memory=task.memory)
    check_room(needs, task.cache, available_memory())
    say(f"{_describe_needs(needs, folder)}; {_describe_time(recipe, weights)}")


def _mixed(recipe: Recipe, samples: Path | None, share: float | None) -> Recipe:
    """Return the recipe with another share of general text beside the samples."""
    if share is None or recipe.mix is None:
        return recipe
    if samples is None:
        raise InputError(f"--general-share goes with --samples, got {share} without: all text is general then")
    return replace(recipe, mix=replace(recipe.mix, general_share=share))


def _heldout_of(samples: Path | None) -> dict[str, list[str]]:
    """Return what a sampled set holds out, by kind; of a JSONL file everything may be calibrated on."""
    if samples is None or not samples.is_dir():
        return {}
    return {kind: list(texts) for kind, texts in heldout_by_kind(samples).items()}


def _hardware_of(tier: str, config: str | None) -> set[str]:
    """Return the hardware of all tiers of this name in the configuration."""
    settings = load_configuration(config)
    tiers = [tier_settings for model in settings.models.values() for tier_settings in model.tiers]
    return {tier_settings.hardware for tier_settings in tiers if tier_settings.name == tier}


def default_folder(recipe: Recipe, model: Path | None, samples: Path | None = None) -> Path:
    """Return where a checkpoint goes: each model, recipe and set of samples has its own, so that none replaces another.

    The example's tiers look for theirs, which is calibrated on packaged text, under the tier's name.
    """
    cache = example_folder()
    if model is None and samples is None:
        return cache / (recipe.tier if EXAMPLE[recipe.tier] == recipe.name else recipe.name)
    resolved = model and model.expanduser().resolve()
    texts = () if recipe.mix is None or samples is None else first_texts(recipe.mix, read_texts(samples.expanduser()))
    made_of = fingerprint(
        recipe, Storage.PACKED, model=source_model(resolved).identity, texts=(), samples=texts, heldout=()
    )
    name = f"{recipe.name}-{recipe_hash(made_of)[:_NAME_DIGITS]}"
    return cache / name if resolved is None else cache.parent / resolved.name / name


def _describe_needs(needs: ResourceNeeds, folder: Path) -> str:
    sizes = (needs.checkpoint_bytes, needs.disk_bytes, needs.memory_bytes)
    checkpoint, disk, memory = (f"{count / 1e9:.2f} GB" for count in sizes)
    return f"{folder}: a checkpoint of {checkpoint}, at most {disk} of disk and {memory} of memory"


def _describe_time(recipe: Recipe, weights: Weights) -> str:
    """Return how long it takes, by what the example took: hours should not come as a surprise."""
    seconds = _LOADING_S + making_s(recipe, weights) + measuring_s(weights, len(KINDS))
    return f"about {duration(seconds)} of one CPU core, a GPU takes less"
