"""Make the checkpoints of the tiers: skip what is finished, build aside, measure, judge, publish. Read this first."""

from __future__ import annotations

import errno
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from calibration.errors import BadCheckpointError, DiskFullError
from calibration.folder import locked, require_room, staged
from calibration.maker import Maker
from calibration.manifest import Manifest, describe_weights, finished_manifest, write_manifest
from calibration.recipe import BF16, ROUNDED_MB, Recipe, Storage, check_fits, fingerprint, recipe_for, recipe_hash
from calibration.source import find_source
from calibration.steps import Steps

# How every checkpoint is measured; stands in its manifest.
MEASURED = "reloaded from disk in transformers, float32, with the quantization that the checkpoint declares"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint that may be served."""

    path: Path
    manifest: Manifest
    skipped: bool
    seconds: float  # what this run took for it


class Workshop:
    """Makes checkpoints in one cache; the maker is only loaded when there is something to make."""

    def __init__(
        self,
        cache: Path,
        *,
        load_maker: Callable[[], Maker],
        choose_storage: Callable[[Recipe], Storage],
        steps: Steps,
        find_source: Callable[[], Path] = find_source,
    ) -> None:
        self._cache = cache
        self._load_maker = load_maker
        self._choose_storage = choose_storage
        self._steps = steps
        self._find_source = find_source
        self._maker: Maker | None = None

    def make(self, tiers: Sequence[str], *, force: bool = False) -> list[Checkpoint]:
        """Make the checkpoints of these tiers, in this order, and whatever they need before."""
        recipes = [recipe_for(tier) for tier in tiers]
        for recipe in recipes:
            check_fits(recipe)
        made = []
        with self._steps.showing():
            for recipe in recipes:
                made.append(self._ensure(recipe, force=force))
                if made[-1].skipped:
                    self._steps.note(recipe.tier, "finished before")
        return made

    def _ensure(self, recipe: Recipe, *, force: bool) -> Checkpoint:
        started_s = time.monotonic()
        storage, path = self._choose_storage(recipe), self._cache / recipe.tier
        with locked(self._cache, recipe.tier, partial(self._steps.note, recipe.tier, "waiting for another maker")):
            finished = None if force else finished_manifest(path, recipe_hash(recipe, storage))
            manifest = finished or self._build(recipe, storage)
        seconds = round(time.monotonic() - started_s, 1)
        return Checkpoint(path=path, manifest=manifest, skipped=finished is not None, seconds=seconds)

    def _build(self, recipe: Recipe, storage: Storage) -> Manifest:
        reference = None if recipe.tier == BF16 else self._ensure(recipe_for(BF16), force=False)
        started_s = time.monotonic()
        maker = self._get_maker(recipe.tier)
        require_room(self._cache, recipe.packed_mb + (ROUNDED_MB if storage is Storage.ROUNDED else 0))
        with _full_disk_named(self._cache), staged(self._cache, recipe.tier) as folder:
            with self._steps.step(recipe.tier, describe(recipe, storage)):
                if reference is None:
                    maker.convert(self._find_source(), folder)
                else:
                    maker.quantize(reference.path, recipe, storage, folder)
            with self._steps.step(recipe.tier, "measuring"):
                perplexity = maker.perplexity(folder)
            reference_perplexity = reference.manifest.perplexity if reference else perplexity
            judge(recipe, perplexity, reference_perplexity)
            manifest = Manifest(
                tier=recipe.tier,
                recipe_hash=recipe_hash(recipe, storage),
                fingerprint=fingerprint(recipe, storage),
                versions=dict(maker.versions()),
                made_at=datetime.now(UTC).isoformat(timespec="seconds"),
                seconds=round(time.monotonic() - started_s, 1),
                weights=describe_weights(folder),
                measured=MEASURED,
                perplexity=perplexity,
                reference_perplexity=reference_perplexity,
            )
            write_manifest(folder, manifest)
        ratio = perplexity / reference_perplexity
        self._steps.note(recipe.tier, f"perplexity {perplexity:.2f}, {ratio:.3f} of bf16; published")
        return manifest

    def _get_maker(self, tier: str) -> Maker:
        if self._maker is None:
            with self._steps.step(tier, "loading the libraries"):
                self._maker = self._load_maker()
        return self._maker


def describe(recipe: Recipe, storage: Storage) -> str:
    rounded = ", spelled out as bf16" if storage is Storage.ROUNDED else ""
    return f"{recipe.method}: {recipe.summary}{rounded}"


def judge(recipe: Recipe, perplexity: float, reference_perplexity: float) -> None:
    """Raise BadCheckpointError unless the checkpoint is as good as its recipe promises."""
    if not math.isfinite(perplexity):
        raise BadCheckpointError(f"{recipe.tier}: perplexity is {perplexity}; nothing was published")
    ratio = perplexity / reference_perplexity
    if ratio > recipe.max_perplexity_ratio:
        raise BadCheckpointError(
            f"{recipe.tier}: perplexity {perplexity:.2f} is {ratio:.3f} of bf16's {reference_perplexity:.2f}, "
            f"at most {recipe.max_perplexity_ratio} is allowed; nothing was published"
        )


@contextmanager
def _full_disk_named(cache: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(f"the disk of {cache} is full; make room or use --cache") from error
        raise
