"""Make the example by every recipe and measure each checkpoint: `python -m benchmarks.recipes`.

The commands are those of a user: `calibrate quantize`, then one `calibrate evaluate` over all checkpoints. Recipes that
are made for the comparison alone are in comparison/recipes.toml, and go to the quantizer's environment as tasks. What
was made or measured before is reused; remove a checkpoint's folder, or var/bench/recipes, to have it done again.
benchmarks/comparison/exact.py adds exact divergences: the engine's answers bound them from below only.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.harness import ROOT, Figures, arguments, ask, save, say, target
from calibration.artifacts.evaluation_report import Report, TierReport, read_report
from calibration.artifacts.manifest import Manifest, read_manifest
from calibration.commands.checkpoints import AUTO
from calibration.environment import example_folder
from calibration.errors import RecipeError
from calibration.evaluate.heldout import packaged_texts
from calibration.quantization.example import SMOLLM2
from calibration.quantization.quantize_task import QuantizeTask, find_interpreter
from calibration.quantization.recipe import BF16, Recipe, check_fits, recipe_from
from calibration.quantization.standard_recipes import EXAMPLE, RECIPES
from calibration.texts.packaged import KINDS as PACKAGED_KINDS

BITLADDER = str(ROOT / ".venv" / "bin" / "bitladder")
COMPARISON = ROOT / "benchmarks" / "comparison" / "recipes.toml"
WORK = ROOT / "var" / "bench" / "recipes"
# As evaluate calls them: chats are among the prompts.
KINDS = ("code", "prose", "prompts", *(kind for kind in PACKAGED_KINDS if kind not in ("code", "prose", "chat")))
# One thread: how long a recipe takes must not depend on how many cores are free.
QUANTIZER_ENVIRONMENT = {"OMP_NUM_THREADS": "1"}
SHORT = ("int4-rtn-g32", "int8-rtn")


def main() -> None:
    """Make, measure, and write the figures."""
    options = arguments(__doc__)
    tokens, problems = (512, 8) if options.short else (4096, 164)
    recipes = [
        recipe
        for recipe in fitting_recipes()
        if options.only in recipe.name and (not options.short or recipe.name in SHORT)
    ]
    folders = {recipe.name: make(recipe) for recipe in recipes}
    reference = example_folder() / BF16
    report = evaluate(list(folders.values()), reference, tokens, problems)
    rows, served = {BF16: quality(find(report, reference), None, None)}, {BF16: speed(find(report, reference))}
    for recipe in recipes:
        tier, manifest = find(report, folders[recipe.name]), read_manifest(folders[recipe.name])
        if manifest is None:
            raise RuntimeError(f"{folders[recipe.name]} has lost its manifest")
        exact = exact_divergence(recipe, tier, reference, tokens)
        rows[recipe.name], served[recipe.name] = quality(tier, manifest, exact), speed(tier)
    targets = [] if options.short or options.only else targets_of(rows)
    figures = {"rows": rows, "served": served, "versions": report.versions, "sources": report.sources}
    save("recipes", figures | {"targets": targets}, options)
    shutil.copy(WORK / "quality-cost.png", options.out / "recipes.png")


def comparison_recipes() -> list[Recipe]:
    """Return the recipes that are no part of bitladder: they are made to be compared with its own."""
    recipes = tomllib.loads(COMPARISON.read_text(encoding="utf-8"))
    return [recipe_from({"name": name} | fields) for name, fields in recipes.items()]


def fitting_recipes() -> list[Recipe]:
    """Return every recipe whose groups and blocks divide the example's layers, tier by tier."""

    def fits(recipe: Recipe) -> bool:
        try:
            check_fits(recipe, SMOLLM2.shape)
        except RecipeError:
            return False
        return recipe.tier != BF16

    recipes = [recipe for recipe in (*RECIPES.values(), *comparison_recipes()) if fits(recipe)]
    tiers = list(EXAMPLE)
    return sorted(recipes, key=lambda recipe: tiers.index(recipe.tier))


def make(recipe: Recipe) -> Path:
    """Return the checkpoint's folder; make the checkpoint if it is not there."""
    say(recipe.name)
    if recipe.name not in RECIPES:
        return make_for_comparison(recipe)
    command = [BITLADDER, "calibrate", "quantize", "--tier", recipe.tier, "--recipe", recipe.name, "--json"]
    return Path(ask(command, QUANTIZER_ENVIRONMENT, timeout_s=3600)["path"])


def make_for_comparison(recipe: Recipe) -> Path:
    """Give the quantizer's environment a task, as `calibrate quantize` does."""
    folder = example_folder()
    task = QuantizeTask(recipe=recipe, cache=folder, folder=recipe.name, weights=SMOLLM2, storage=AUTO, as_json=True)
    python = find_interpreter(recipe.toolkit, None)
    environment = os.environ | QUANTIZER_ENVIRONMENT  # noqa: TID251  (a benchmark is its own program)
    done = subprocess.run(  # noqa: S603  (our own command)
        [python, "-m", "calibration", "make"],
        cwd=ROOT,
        env=environment,
        input=task.to_json(),
        stdout=subprocess.PIPE,
        text=True,
        timeout=3600,
        check=True,
    )
    return Path(json.loads(done.stdout.splitlines()[-1])["path"])


def evaluate(folders: Sequence[Path], reference: Path, tokens: int, problems: int) -> Report:
    """Return the report over all checkpoints; progress goes to stderr."""
    command = [BITLADDER, "calibrate", "evaluate", *map(str, folders), "--reference", str(reference), "--top", "256"]
    options = ["--out", str(WORK), "--tokens", str(tokens), "--problems", str(problems)]
    subprocess.run([*command, *options], cwd=ROOT, stdout=sys.stderr, check=True)  # noqa: S603  (our own command)
    return read_report(WORK / "report.json")


def find(report: Report, folder: Path) -> TierReport:
    return next(tier for tier in report.tiers if tier.checkpoint == str(folder.resolve()))


def exact_divergence(recipe: Recipe, tier: TierReport, reference: Path, tokens: int) -> Figures:
    """Return what comparison/exact.py prints for a checkpoint; it takes minutes, so that its answer is stored."""
    stored = WORK / f"exact-{tier.digest[:16]}-{tokens}.json"
    if not stored.exists():
        say(f"{recipe.name}: exact divergence")
        texts = WORK / "texts.jsonl"
        lines = [json.dumps({"kind": text.kind, "text": text.text}) for text in packaged_texts()]
        texts.write_text("\n".join(lines) + "\n", encoding="utf-8")
        python = ROOT / recipe.toolkit / "bin" / "python"
        command = [str(python), "-m", "benchmarks.comparison.exact", tier.checkpoint, str(reference), str(texts)]
        divergences = ask(
            [*command, "--tokens", str(tokens)], QUANTIZER_ENVIRONMENT | {"HF_HUB_OFFLINE": "1"}, timeout_s=1800
        )
        stored.write_text(json.dumps(divergences), encoding="utf-8")
    figures: Figures = json.loads(stored.read_bytes())
    return figures


def quality(tier: TierReport, manifest: Manifest | None, exact: Figures | None) -> Figures:
    """Return a row of the first table: what making took, how large it is, and what is left of the reference."""
    row: Figures = {"mb": tier.metrics["memory_bytes.weights"].value / 1e6}
    if manifest and exact:
        row |= {"cpu_s": manifest.cpu_s, "peak_gb": manifest.peak_mb / 1000}
        row["stored"] = manifest.fingerprint["storage"]
        row |= {f"kl_{kind}": exact[kind]["kl"] for kind in KINDS}
        row |= {f"kl_bound_{kind}": tier.metrics[f"kl_mean.{kind}"].value for kind in KINDS}
        row |= {f"exact_ratio_{kind}": exact[kind]["perplexity"] / exact[kind]["reference"] for kind in KINDS}
        row |= {f"ratio_{kind}": 1 / tier.recovery[f"perplexity.{kind}"].value for kind in KINDS}
        row |= {f"top1_{kind}": tier.metrics[f"top1.{kind}"].value for kind in KINDS}
    return row | {f"perplexity_{kind}": tier.metrics[f"perplexity.{kind}"].value for kind in KINDS}


def speed(tier: TierReport) -> Figures:
    """Return a row of the second table: what the engine does with it."""
    solved, rate = tier.metrics["pass_at_1"], tier.metrics["tokens_per_s"]
    return {
        "pass_at_1": f"{100 * solved.value:.1f} % ({100 * solved.low:.1f}-{100 * solved.high:.1f})",
        "paired": paired(tier),
        "tokens_per_s": f"{rate.value:.0f} ({rate.low:.0f}-{rate.high:.0f})",
        "ttft_p50_ms": tier.metrics["ttft_ms.p50"].value,
        "ttft_p99_ms": tier.metrics["ttft_ms.p99"].value,
        "resident_mb": tier.metrics["memory_bytes.resident"].value / 1e6,
    }


def paired(tier: TierReport) -> str:
    """Return how many problems only this one solved, and how many only the reference did."""
    comparison = tier.compared.get("pass_at_1")
    return "" if comparison is None else f"+{comparison.better} -{comparison.worse}, p {comparison.p:.2g}"


def targets_of(rows: Mapping[str, Figures]) -> list[Figures]:
    """Return what the example ladder's checkpoints are asked to reach."""
    int4, int8, fp8 = (rows[EXAMPLE[tier]] for tier in ("int4", "int8", "fp8"))
    whole = rows[BF16]["mb"]
    fp8_worst = max(abs(fp8[f"ratio_{kind}"] - 1) for kind in KINDS)
    return [
        target("INT4: share of bf16's bytes", int4["mb"] / whole, 0.45, at_most=True),
        target("INT4: KL, code", int4["kl_code"], 0.15, at_most=True),
        target("INT4: KL, the worst kind", worst(int4, "kl"), 0.15, at_most=True),
        target("INT4: perplexity of code, of bf16's", int4["ratio_code"], 1.10, at_most=True),
        target("INT4: memory of the weights that is saved", 1 - int4["mb"] / whole, 0.60),
        target("INT8: KL, code", int8["kl_code"], 0.02, at_most=True),
        target("INT8: KL, the worst kind", worst(int8, "kl"), 0.025, at_most=True),
        target("FP8: perplexity off bf16's, the worst kind", fp8_worst, 0.01, at_most=True),
        target(
            "CPU minutes of the slowest recipe",
            max(row.get("cpu_s", 0) for row in rows.values()) / 60,
            30,
            at_most=True,
        ),
    ]


def worst(row: Figures, figure: str) -> float:
    return max(float(row[f"{figure}_{kind}"]) for kind in KINDS)


if __name__ == "__main__":
    main()
