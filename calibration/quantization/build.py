"""Make the checkpoints of the tiers: skip finished ones, build, measure, judge, rename into place. Read this first."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from calibration.artifacts.folder import (
    claimed,
    full_disk_named,
    remove,
    require_disk_space,
    require_replaceable,
    staged,
)
from calibration.artifacts.manifest import (
    Manifest,
    describe_files,
    describe_weights,
    finished_manifest,
    is_checkpoint,
    write_manifest,
)
from calibration.errors import BadCheckpointError
from calibration.quantization.estimate import Weights, disk_bytes
from calibration.quantization.example import SMOLLM2, SOURCE, find_source
from calibration.quantization.installed_texts import texts_for
from calibration.quantization.quantizer import OffloadLimit, Quantizer, QuantizeSpec
from calibration.quantization.recipe import BF16, Recipe, Storage, check_fits, fingerprint, recipe_hash
from calibration.quantization.standard_recipes import example_recipe
from calibration.terminal.progress import Steps

# How every checkpoint is measured; written to its manifest.
_MEASURED = "reloaded from disk in transformers, float32, with the quantization that the checkpoint declares"
_NOT_MEASURED = "not: quick, and to be replaced by a measured one (`make checkpoints`)"
_MEASURED_HELD = "before it was written, in bf16 in transformers: only so much memory was allowed"
# How long steps of the example take on two idle cores, where they do not count what they do.
_LOADING_S, _MAKING_S, _MEASURING_S = 10, 20, 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint that may be served."""

    path: Path
    manifest: Manifest
    skipped: bool
    seconds: float  # of this run


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceModel:
    """The model to quantize: a package's file, which is unpacked to bf16 first, or a folder of safetensors."""

    identity: dict[str, Any]  # Any: JSON; part of every hash
    folder: Path | None = None
    find_source: Callable[[], Path] = find_source


EXAMPLE = SourceModel(identity=asdict(SOURCE))


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointJob:
    """One checkpoint to make."""

    folder: str  # its name in the cache
    recipe: Recipe
    weights: Weights
    texts: tuple[str, ...] = ()  # calibration texts, if the recipe needs any
    memory: int | None = None  # bytes of weights in memory; the rest is offloaded to disk
    option: str = "--cache"  # the option that names the folder, for messages


def example_job(tier: str, *, is_quick: bool = False) -> CheckpointJob:
    """Return the job of the example's checkpoint for a tier, or of what stands in for it."""
    recipe = example_recipe(tier, is_quick=is_quick)
    texts = tuple(texts_for(recipe.mix)) if recipe.mix else ()
    return CheckpointJob(folder=tier, recipe=recipe, weights=SMOLLM2, texts=texts)


@dataclass(frozen=True, slots=True)
class CheckpointCache:
    """A folder of checkpoints."""

    cache: Path
    option: str  # the option that names it, for messages


class CheckpointBuilder:
    """Makes checkpoints in one cache; the quantizer is only loaded when there is something to make."""

    def __init__(
        self,
        cache: Path,
        *,
        load_quantizer: Callable[[], Quantizer],
        choose_storage: Callable[[Recipe], Storage],
        steps: Steps,
        subject: SourceModel = EXAMPLE,
        reference: CheckpointCache | None = None,  # where the example's reference is; None: in the same cache
    ) -> None:
        self._cache = cache
        self._reference_place = reference or CheckpointCache(cache, "--cache")
        self._load_quantizer = load_quantizer
        self._choose_storage = choose_storage
        self._steps = steps
        self._subject = subject
        self._quantizer: Quantizer | None = None

    def make(self, jobs: Sequence[CheckpointJob], *, force: bool = False) -> list[Checkpoint]:
        """Make these checkpoints in this order, each after the reference that it needs."""
        for job in jobs:
            check_fits(job.recipe, job.weights.shape)
            if self._finished(job, force=force) is None:
                require_replaceable(self._path(job), job.option, is_checkpoint)
        made = []
        with self._steps.showing():
            for job in jobs:
                made.append(self._ensure(job, force=force))
                if made[-1].skipped:
                    self._steps.note(job.folder, "finished before")
        return made

    def _ensure(self, job: CheckpointJob, *, force: bool) -> Checkpoint:
        started_s = time.monotonic()
        path, on_wait = self._path(job), partial(self._steps.note, job.folder, "waiting for another process")
        look = partial(self._finished, job, force=force)
        with claimed(path, job.option, is_checkpoint, on_wait, lambda: look() is not None):
            remove(self._offload(job))  # of a process that was killed: it takes disk space
            finished = look()
            manifest = finished or self._build(job, path)
        seconds = round(time.monotonic() - started_s, 1)
        return Checkpoint(path=path, manifest=manifest, skipped=finished is not None, seconds=seconds)

    def _path(self, job: CheckpointJob) -> Path:
        """Return where a checkpoint goes; of a link, what it leads to."""
        return ((self._reference_place.cache if job.recipe.tier == BF16 else self._cache) / job.folder).resolve()

    def _finished(self, job: CheckpointJob, *, force: bool) -> Manifest | None:
        if force:
            return None
        expected_hash = recipe_hash(self._fingerprint(job))
        return finished_manifest(self._path(job), expected_hash, or_measured=job.recipe.is_quick)

    def _fingerprint(self, job: CheckpointJob) -> dict[str, Any]:  # Any: JSON
        storage = self._choose_storage(job.recipe)
        return fingerprint(job.recipe, storage, model=self._subject.identity, texts=job.texts)

    def _build(self, job: CheckpointJob, path: Path) -> Manifest:
        recipe, name, held = job.recipe, job.folder, self._held(job)
        storage, made_of = self._choose_storage(recipe), self._fingerprint(job)
        reference = None if recipe.tier == BF16 else self._reference(job)
        started_s, started_cpu_s = time.monotonic(), time.process_time()
        quantizer = self._get_quantizer(name)
        needed_mb = disk_bytes(recipe, job.weights, storage, memory=job.memory) // 10**6
        require_disk_space(path.parent, needed_mb, job.option)
        with full_disk_named(path.parent, job.option), staged(path) as folder:
            with self._steps.step(name, _describe(recipe, storage), expected_s=_MAKING_S) as advance:
                if reference is None:
                    quantizer.convert(self._subject.find_source(), folder)
                else:
                    quantizer.quantize(QuantizeSpec(reference.path, recipe, storage, job.texts, held), folder, advance)
            manifest = Manifest(
                tier=recipe.tier,
                recipe_hash=recipe_hash(made_of),
                fingerprint=made_of,
                versions=dict(quantizer.versions()),
                made_at=datetime.now(UTC).isoformat(timespec="seconds"),
                seconds=round(time.monotonic() - started_s, 1),
                cpu_s=round(time.process_time() - started_cpu_s, 1),
                peak_mb=_peak_mb(),
                weights=describe_weights(folder),
                files=describe_files(folder),
                **self._measured(job, folder, reference),
            )
            write_manifest(folder, manifest)
        self._steps.note(name, f"{quality(manifest)}; finished")
        return manifest

    def _measured(self, job: CheckpointJob, folder: Path, reference: Reference | None) -> dict[str, Any]:  # Any: JSON
        """Measure and judge a checkpoint; return what its manifest says about that."""
        if job.recipe.is_quick:
            return {"measured": _NOT_MEASURED, "perplexity": None, "reference_perplexity": None, "quick": True}
        with self._steps.step(job.folder, "measuring", expected_s=_MEASURING_S):
            perplexity = self._get_quantizer(job.folder).perplexity(folder, self._held(job))
        reference_perplexity = reference.perplexity if reference else None
        judge(job.recipe, perplexity, reference_perplexity or perplexity)
        return {
            "measured": _MEASURED if job.memory is None else _MEASURED_HELD,
            "perplexity": perplexity,
            "reference_perplexity": reference_perplexity or perplexity,
        }

    def _reference(self, job: CheckpointJob) -> Reference:
        """Return the model that a checkpoint is made from and compared with."""
        if job.recipe.is_quick:
            return Reference(path=self._subject.find_source(), perplexity=None)
        folder = self._subject.folder
        if folder is None:
            made = self._ensure(replace(example_job(BF16), option=self._reference_place.option), force=False)
            return Reference(path=made.path, perplexity=made.manifest.perplexity)
        quantizer = self._get_quantizer(job.folder)
        with (
            full_disk_named(self._cache, "--out"),
            self._steps.step(job.folder, f"measuring {folder.name}", expected_s=None),
        ):
            return Reference(path=folder, perplexity=quantizer.perplexity(folder, self._held(job)))

    def _held(self, job: CheckpointJob) -> OffloadLimit | None:
        """Offload to a folder beside the checkpoint: a folder for temporary files may be in memory."""
        return None if job.memory is None else OffloadLimit(job.memory, self._offload(job))

    def _offload(self, job: CheckpointJob) -> Path:
        return self._cache / f".{job.folder}.offload"

    def _get_quantizer(self, name: str) -> Quantizer:
        if self._quantizer is None:
            with self._steps.step(name, "loading the libraries", expected_s=_LOADING_S):
                self._quantizer = self._load_quantizer()
        return self._quantizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The model before it is quantized."""

    path: Path
    perplexity: float | None  # None: nothing is measured


def _peak_mb() -> int:
    """Return the most memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // 10**6


def quality(manifest: Manifest) -> str:
    """Return what is known of a checkpoint's quality, for people."""
    if manifest.perplexity is None or manifest.reference_perplexity is None:
        return "quick, not measured"
    return f"perplexity {manifest.perplexity:.2f}, {manifest.perplexity / manifest.reference_perplexity:.3f} of bf16"


def _describe(recipe: Recipe, storage: Storage) -> str:
    rounded = ", spelled out as bf16" if storage is Storage.ROUNDED else ""
    return f"{recipe.method}: {recipe.summary}{rounded}"


def judge(recipe: Recipe, perplexity: float, reference_perplexity: float) -> None:
    """Raise BadCheckpointError unless the checkpoint is as good as its recipe promises."""
    if not math.isfinite(perplexity):
        raise BadCheckpointError(f"{recipe.name}: perplexity is {perplexity}; it is not kept")
    ratio = perplexity / reference_perplexity
    if recipe.max_perplexity_ratio is not None and ratio > recipe.max_perplexity_ratio:
        raise BadCheckpointError(
            f"{recipe.name}: perplexity {perplexity:.2f} is {ratio:.3f} of bf16's {reference_perplexity:.2f}, "
            f"at most {recipe.max_perplexity_ratio} is allowed; it is not kept"
        )
