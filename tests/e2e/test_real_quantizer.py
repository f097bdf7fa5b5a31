"""The real quantizer on a small model of random weights: from a folder to a checkpoint that passes its inspection."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from calibration.environment import example_folder
from calibration.inspection.checkpoint import inspect_checkpoint
from calibration.inspection.verdict import Verdict
from calibration.texts.packaged import KINDS, packaged_calibration
from tests.calibration.inspection.tiny import HEADS, HIDDEN, Tiny, bf16
from tests.conftest import ROOT

pytestmark = pytest.mark.vllm
PYTHON = ROOT / ".venv-quantize" / "bin" / "python"
REFERENCE = example_folder() / "bf16"
OPENINGS = ("Seit gestern Abend hat", "Nach dem Umzug in das neue Büro hat", "Wie schon im März hat", "Leider hat")
DEVICES = ("der Drucker im dritten Stock", "das Kassensystem der Filiale", "unser Telefon", "der Scanner im Lager")
FAULTS = ("keine Verbindung mehr.", "alle Einstellungen vergessen.", "den Dienst eingestellt.", "zwei Fehler gemeldet.")
TRIED = ("Ein Neustart half nicht.", "Wir haben das Kabel getauscht.", "Die Anleitung sagt dazu nichts.", "")
WISHES = ("Bitte um Rückruf bis Freitag.", "Wann kommt ein Techniker?", "Gibt es dafür ein Ersatzgerät?")
REMARKS = (
    *("Der Vertrag läuft noch bis Juni.", "Die Rechnung ist bezahlt.", "Meine Kollegin kennt das Passwort nicht."),
    *("Am Dienstag war alles noch in Ordnung.", "Der Fehler tritt nur morgens auf.", "Das Licht blinkt rot."),
    *("Wir brauchen das Gerät für die Inventur.", "Der Schlüssel liegt beim Pförtner.", "Es eilt nicht sehr."),
    *("Ein Foto hängt an.", "Ihr Kollege war schon einmal hier.", "Das Modell ist vier Jahre alt."),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two layers that stammer in the example's own vocabulary."""
    if not PYTHON.exists() or not REFERENCE.exists():
        message = "there is no quantizer or no tokenizer: `make checkpoints` makes both"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    words = json.loads((REFERENCE / "config.json").read_bytes())["vocab_size"]
    tiny, random = Tiny(), np.random.default_rng(5)
    tiny.config |= {"vocab_size": words, "num_key_value_heads": HEADS}
    tiny.tensors["model.embed_tokens.weight"] = bf16(random.normal(0, 0.1, (words, HIDDEN)))
    for name in [name for name in tiny.tensors if name.endswith(("k_proj.weight", "v_proj.weight"))]:
        tiny.tensors[name] = bf16(random.normal(0, 0.05, (HIDDEN, HIDDEN)))
    folder = tiny.write(tmp_path_factory.mktemp("model"))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(REFERENCE / name, folder / name)
    return folder


def quantize(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bitladder.cli.main", "calibrate", "quantize", "--json", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("recipe", ["int4-awq-gptq-g32", "int8-smoothquant-gptq"])
def test_a_model_becomes_a_checkpoint_that_may_serve(model: Path, tmp_path: Path, recipe: str) -> None:
    options = ("--tier", recipe[:4], "--recipe", recipe, "--model", str(model), "--out", str(tmp_path / "made"))

    done = quantize(*options)

    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert (made["recipe"], made["path"]) == (recipe, str(tmp_path / "made"))
    inspection = inspect_checkpoint(tmp_path / "made")
    assert inspection.verdict is not Verdict.FAIL, inspection.checks
    assert json.loads((tmp_path / "made" / "tokenizer.json").read_bytes())["truncation"] is None
    again = quantize(*options)
    assert json.loads(again.stdout)["skipped"], again.stderr


@pytest.mark.skipif(not (ROOT / ".venv-autoawq").exists(), reason="AutoAWQ is optional: `make autoawq-env`")
def test_autoawq_does_not_spoil_the_weights_on_a_cpu(model: Path, tmp_path: Path) -> None:
    done = quantize(
        *("--tier", "int4", "--recipe", "int4-autoawq-g64", "--model", str(model), "--out", str(tmp_path / "made"))
    )

    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["perplexity"] == pytest.approx(made["reference_perplexity"], rel=0.05)
    inspection = inspect_checkpoint(tmp_path / "made")
    assert inspection.verdict is not Verdict.FAIL, inspection.checks


def test_weights_that_may_not_stay_in_memory_give_the_same_checkpoint(model: Path, tmp_path: Path) -> None:
    options = ("--tier", "fp8", "--model", str(model))

    whole = quantize(*options, "--out", str(tmp_path / "whole"))
    held = quantize(*options, "--out", str(tmp_path / "held"), "--memory-gb", "0.004")

    assert (whole.returncode, held.returncode) == (0, 0), whole.stderr + held.stderr
    one, other = (tmp_path / name / "model.safetensors" for name in ("whole", "held"))
    assert one.read_bytes() == other.read_bytes()
    assert [path.name for path in tmp_path.iterdir() if "offload" in path.name] == []


def test_own_traffic_is_sampled_calibrated_on_and_judged(model: Path, tmp_path: Path) -> None:
    """German tickets, made of templates, and real German paragraphs beside them; no line of it is English."""
    write_german_traffic(tmp_path / "traffic")
    sampled = calibrate(
        *("sample", "--source", str(tmp_path / "traffic"), "--out", str(tmp_path / "set")),
        *("--count", "120", "--heldout", "40"),
    )
    assert sampled.returncode == 0, sampled.stderr
    out = tmp_path / "made"
    options = ("--tier", "int4", "--model", str(model), "--samples", str(tmp_path / "set"), "--out", str(out))

    done = quantize(*options, "--general-share", "0.2")

    assert done.returncode == 0, done.stderr
    manifest = json.loads((out / "manifest.json").read_bytes())
    judged = {name: group for name, group in manifest["groups"].items() if group["judged"]}
    assert set(judged) == {"own prose de"}
    assert judged["own prose de"]["tokens"] > 500
    assert 0 < judged["own prose de"]["kl"] <= 0.15
    assert "own prose de" in done.stderr
    assert set(KINDS) < set(manifest["groups"])  # packaged text: beside it, for information
    calibration = manifest["calibration"]
    share = calibration["general_tokens"] / (calibration["general_tokens"] + calibration["sample_tokens"])
    assert (calibration["samples"], share) == (120, pytest.approx(0.2, abs=0.01))
    assert "calibrated on 120 of 120 samples" in done.stderr


def write_german_traffic(folder: Path) -> None:
    folder.mkdir()
    chance = random.Random(16)  # noqa: S311  (must be repeatable, not secret)
    tickets = [
        f"Ticket {number}: {chance.choice(OPENINGS)} {chance.choice(DEVICES)} {chance.choice(FAULTS)} "
        f"{chance.choice(TRIED)} {chance.choice(WISHES)} {' '.join(chance.sample(REMARKS, 4))}"
        for number in range(4000, 4400)
    ]
    real = [text for kind, text in packaged_calibration() if kind == "german"]
    for name, prompts in (("tickets", tickets), ("real", real)):
        lines = [json.dumps({"prompt": prompt}, ensure_ascii=False) + "\n" for prompt in prompts]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def calibrate(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bitladder.cli.main", "calibrate", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
