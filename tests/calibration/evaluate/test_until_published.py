"""From the folder that `quantize` chooses to a tier that is served: each step takes what the one before leaves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from calibration.artifacts.evaluation_report import encode_report
from calibration.artifacts.manifest import describe_weights, write_manifest
from calibration.commands.quantize import default_folder
from calibration.evaluate.candidates import CheckpointArg, find_candidates
from calibration.evaluate.run_evaluation import evaluate
from calibration.publishing.publish_tiers import Choice, publish
from calibration.quantization.standard_recipes import find_recipe
from tests.calibration.evaluate.test_candidates import MANIFEST
from tests.calibration.evaluate.test_report_of_results import ABOUT, evaluation, store_results
from tests.calibration.inspection.tiny import Tiny
from tests.calibration.publishing.scene import Scene


async def test_what_quantize_makes_by_default_is_measured_and_published_as_its_tier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    model = Tiny("bf16").write(tmp_path / "models" / "llama-8b")
    folder = default_folder(find_recipe("int4", None, is_example=False), model)
    Tiny("int4").write(folder)
    write_manifest(folder, replace(MANIFEST, tier="int4", weights=describe_weights(folder)))
    scene, its = Scene(tmp_path), evaluation(tmp_path)
    given = [CheckpointArg.read(f"bf16={model}"), CheckpointArg.read(str(folder))]
    ours = find_candidates(given, scene.settings.model("m"), its.vllm)
    for one, loss in zip(ours, (2.0, 2.05), strict=True):
        store_results(its, one, loss)
    report = tmp_path / "report.json"

    report.write_bytes(encode_report(await evaluate(ours[0], ours[1:], its, ABOUT)))
    few = scene.settings.publish.model_copy(update={"min_tokens": 200})
    settings = scene.settings.model_copy(update={"publish": few})
    publish(Choice(report=report, tiers=["int4"]), settings, scene.store, lambda tier, text: None)

    assert folder.name.startswith("int4-gptq-g32-")
    assert scene.served("int4") == str(folder)
