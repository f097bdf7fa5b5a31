"""Make the checkpoints of the tiers: skip finished ones, build, measure, judge, rename into place. Read this first."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
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
    set_aside,
    staged,
)
from calibration.artifacts.manifest import (
    Manifest,
    describe_files,
    describe_weights,
    finished_manifest,
    is_checkpoint,
    read_manifest,
    write_manifest,
)
from calibration.errors import BadCheckpointError
from calibration.quantization.estimate import Weights, answers_bytes, disk_bytes, making_s, measuring_s
from calibration.quantization.example import SMOLLM2, SOURCE, find_source
from calibration.quantization.judging.heldout_groups import GROUP_TOKENS, Heldout, HeldoutGroup, heldout_groups
from calibration.quantization.judging.kind_figures import (
    as_manifest,
    complaints,
    gained_and_lost,
    judged_names,
    pooled_perplexity,
    quality,
)
from calibration.quantization.offload import OffloadLimit
from calibration.quantization.quantizer import Quantizer, QuantizeSpec
from calibration.quantization.recipe import BF16, Recipe, Storage, check_fits, fingerprint, recipe_hash
from calibration.quantization.standard_recipes import example_recipe
from calibration.quantization.texts.installed_texts import texts_for
from calibration.quantization.texts.token_budget import samples_used
from calibration.terminal.progress import Steps

# How every checkpoint is measured; written to its manifest.
_MEASURED = "reloaded from disk in transformers, float32, with the quantization that the checkpoint declares"
_NOT_MEASURED = "not: quick, and to be replaced by a measured one (`make checkpoints`)"
_MEASURED_HELD = "before it was written, in bf16 in transformers: only so much memory was allowed"


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
    texts: tuple[str, ...] = ()  # general calibration texts, if the recipe needs any
    samples: tuple[str, ...] = ()  # of the user, with which they are mixed: as many as may be needed
    samples_in_all: int = 0
    groups: tuple[HeldoutGroup, ...] = field(default_factory=lambda: heldout_groups({}))
    standard: Path | None = None  # its checkpoint without samples, to compare with
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
                for place in (self._path(job), self._aside(job)):
                    require_replaceable(place, job.option, is_checkpoint)
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
            if finished is None and not force:
                self._refuse_again(job)
            manifest = finished or self._build(job, path)
        seconds = round(time.monotonic() - started_s, 1)
        return Checkpoint(path=path, manifest=manifest, skipped=finished is not None, seconds=seconds)

    def _path(self, job: CheckpointJob) -> Path:
        """Return where a checkpoint goes; of a link, what it leads to."""
        return ((self._reference_place.cache if job.recipe.tier == BF16 else self._cache) / job.folder).resolve()

    def _aside(self, job: CheckpointJob) -> Path:
        """Return where a refused checkpoint is kept: beside, under a name of its own."""
        path = self._path(job)
        return path.with_name(f"{path.name}.refused-{recipe_hash(self._fingerprint(job))[:8]}")

    def _refuse_again(self, job: CheckpointJob) -> None:
        """Raise BadCheckpointError if this very checkpoint was made and refused before: it would come out the same."""
        manifest = finished_manifest(self._aside(job), recipe_hash(self._fingerprint(job)))
        if manifest is not None and manifest.refused:
            raise _refusal(job.recipe, manifest.refused, self._aside(job))

    def _finished(self, job: CheckpointJob, *, force: bool) -> Manifest | None:
        if force:
            return None
        expected_hash = recipe_hash(self._fingerprint(job))
        return finished_manifest(self._path(job), expected_hash, or_measured=job.recipe.is_quick)

    def _fingerprint(self, job: CheckpointJob) -> dict[str, Any]:  # Any: JSON
        storage = self._choose_storage(job.recipe)
        return fingerprint(
            job.recipe,
            storage,
            model=self._subject.identity,
            texts=job.texts,
            samples=job.samples,
            heldout=[text for group in job.groups if group.is_judged for text in group.texts],
        )

    def _build(self, job: CheckpointJob, path: Path) -> Manifest:
        recipe, name, held = job.recipe, job.folder, self._held(job)
        storage, made_of = self._choose_storage(recipe), self._fingerprint(job)
        reference = None if recipe.tier == BF16 else self._reference(job)
        started_s, started_cpu_s = time.monotonic(), time.process_time()
        quantizer, tokens = self._get_quantizer(name), None
        require_disk_space(path.parent, self._disk_mb(job, storage), job.option)
        with full_disk_named(path.parent, job.option), staged(path) as folder:
            heldout = Heldout(job.groups, reference or folder, self._cache)
            with self._steps.step(
                name, _describe(recipe, storage), expected_s=making_s(recipe, job.weights)
            ) as advance:
                if reference is None:
                    quantizer.convert(self._subject.find_source(), folder)
                else:
                    spec = QuantizeSpec(reference, recipe, storage, job.texts, held, job.samples, heldout)
                    tokens = quantizer.quantize(spec, folder, advance)
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
                calibration=tokens.counts() if tokens else {},
                **self._measured(job, folder, heldout),
            )
            write_manifest(folder, manifest)
            self._say(job, manifest)
            if manifest.refused:
                set_aside(folder, self._aside(job))
                raise _refusal(recipe, manifest.refused, self._aside(job))
        return manifest

    def _disk_mb(self, job: CheckpointJob, storage: Storage) -> int:
        answers = 0 if job.recipe.is_quick else answers_bytes(job.weights, len(job.groups) * GROUP_TOKENS)
        return (disk_bytes(job.recipe, job.weights, storage, memory=job.memory) + answers) // 10**6

    def _measured(self, job: CheckpointJob, folder: Path, heldout: Heldout) -> dict[str, Any]:  # Any: JSON
        """Measure and judge a checkpoint; return what its manifest says about that."""
        if job.recipe.is_quick:
            return {"measured": _NOT_MEASURED, "perplexity": None, "reference_perplexity": None, "quick": True}
        quantizer, held, standard = self._get_quantizer(job.folder), self._held(job), self._standard(job)
        with self._steps.step(job.folder, "measuring", expected_s=measuring_s(job.weights, len(job.groups))):
            figures = quantizer.measure(folder, heldout, held)
            reference = quantizer.measure(heldout.reference, heldout, held)
            without = quantizer.measure(standard, heldout, held) if standard else {}
        judged = [name for name in judged_names(job.groups) if name in figures]
        return {
            "measured": _MEASURED if job.memory is None else _MEASURED_HELD,
            "perplexity": pooled_perplexity(figures[name] for name in judged),
            "reference_perplexity": pooled_perplexity(reference[name] for name in judged),
            "groups": as_manifest(job.groups, figures, reference, without),
            "refused": complaints(job.recipe, job.groups, figures, reference),
        }

    def _standard(self, job: CheckpointJob) -> Path | None:
        """Return the checkpoint of the same model and recipe without samples, if there is one."""
        manifest = read_manifest(job.standard) if job.standard and job.samples else None
        if manifest is None or manifest.quick or manifest.fingerprint.get("model") != self._subject.identity:
            return None
        return None if "mixed_with" in manifest.fingerprint else job.standard

    def _say(self, job: CheckpointJob, manifest: Manifest) -> None:
        verdict = "refused" if manifest.refused else "finished"
        lines = [f"{quality(manifest)}; {verdict}", *gained_and_lost(manifest.groups)]
        if job.samples and manifest.calibration:
            lines.append(samples_used(job.samples_in_all, manifest.calibration))
        for line in lines:
            self._steps.note(job.folder, line)

    def _reference(self, job: CheckpointJob) -> Path:
        """Return the model that a checkpoint is made from and compared with."""
        if job.recipe.is_quick:
            return self._subject.find_source()
        if self._subject.folder is not None:
            return self._subject.folder
        return self._ensure(replace(example_job(BF16), option=self._reference_place.option), force=False).path

    def _held(self, job: CheckpointJob) -> OffloadLimit | None:
        """Offload to a folder beside the checkpoint: a folder for temporary files may be in memory."""
        return None if job.memory is None else OffloadLimit(job.memory, self._offload(job))

    def _offload(self, job: CheckpointJob) -> Path:
        return self._cache / f".{job.folder}.offload"

    def _get_quantizer(self, name: str) -> Quantizer:
        if self._quantizer is None:
            with self._steps.step(name, "loading the libraries", expected_s=10):
                self._quantizer = self._load_quantizer()
        return self._quantizer


def _peak_mb() -> int:
    """Return the most memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // 10**6


def _describe(recipe: Recipe, storage: Storage) -> str:
    rounded = ", spelled out as bf16" if storage is Storage.ROUNDED else ""
    return f"{recipe.method}: {recipe.summary}{rounded}"


def _refusal(recipe: Recipe, reasons: Sequence[str], aside: Path) -> BadCheckpointError:
    return BadCheckpointError(f"{recipe.name}: {'; '.join(reasons)}. It is kept in {aside}; nothing was replaced")
