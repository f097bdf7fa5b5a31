"""A canary of real checkpoints on real vLLM: what becomes of a slightly worse one, a coarse one, and an equal one.

`python -m benchmarks.control.canary_vllm [--short] [--out FOLDER]` (needs `make engine-env checkpoints`)

One model serves GPTQ's int4 checkpoint; candidates have the same format: all weights rounded to the nearest level,
the same with every second level only, and the same weights in another engine. Each is held against bf16, by KL along
its answers to natural prompts, which gather_prompts finds on this machine. A client asks for the candidate all the
time, whatever the share. Beside the pairs stands what was said before: by the replays on labels of other prompts
(canary_replays.py), and by canary/power.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from numpy.typing import NDArray

from benchmarks.control.rounded_checkpoint import round_to_nearest
from benchmarks.harness import ROOT, Figures, arguments, save, say, target
from bitladder.cli.private_stack import PrivateStack, private_stack
from calibration.control.canary.pair_journal import read_pairs
from calibration.control.canary.power import Assumed, simulate_power
from calibration.environment import example_folder

ALPHA, ANSWER_TOKENS, AT_ONCE, MAX_PAIRS = 0.05, 24, 6, 1000
PROMPT_BYTES = 320
PAUSE_S = 0.2  # of the client: one that never pauses takes both cores
# By candidate: how its canary has to end, and the replays' name for it in canary_replays.json.
ENDS = {
    "nearest": ("rolled back", "round-to-nearest for GPTQ"),
    "coarse": ("rolled back", ""),
    "equal": ("promoted", "as good"),
}
_KEPT = (
    "margin", "phase", "why", "pairs", "touched", "seconds", "mean_loss", "mean_difference", "interval", "failed",
    "skipped",
)  # fmt: skip
# With what margin: 0.05 takes some 350 pairs of `nearest`, 0.02 takes 286 of `equal`. What is promoted comes last.
RUNS = {"nearest": 0.02, "coarse": 0.02, "equal": 0.05}
RESULTS = ROOT / "benchmarks" / "results" / "control"
ENGINE_PYTHON = ROOT / ".venv-engine" / "bin" / "python"
CONFIG = f"""
[vllm]
python = "{ENGINE_PYTHON}"
args = ["--max-model-len", "512", "--enforce-eager", "--max-num-seqs", "8"]
[vllm.env]
VLLM_ENABLE_V1_MULTIPROCESSING = "0"
VLLM_CPU_KVCACHE_SPACE = "1"
VLLM_CPU_OMP_THREADS_BIND = "nobind"
OMP_NUM_THREADS = "1"
"""
TIER = """
[[models.{model}.tiers]]
name = "{tier}"
price_per_hour = 1.0
checkpoint = "{checkpoint}"
"""


def main() -> None:
    """Run every canary and write what came of it."""
    options = arguments(__doc__)
    with tempfile.TemporaryDirectory(prefix="bitladder-canary-") as name:
        folder = Path(name)
        prompts = _prompts(folder / "prompts.jsonl")
        config = _config(folder)
        with private_stack(str(config), {"worker.engine": "vllm"}) as stack:
            began = time.monotonic()
            stack.wait_until_live(400, lambda live: None)
            say(f"five engines serve after {time.monotonic() - began:.0f} s")
            rows = [_row(stack, folder, candidate) for candidate in ENDS]
    as_expected = sum(row["phase"] == ENDS[row["candidate"]][0] for row in rows)
    version = "from vllm.version import __version__; print(__version__)"
    asked = subprocess.run([ENGINE_PYTHON, "-c", version], capture_output=True, text=True, check=True)  # noqa: S603
    figures: Figures = {
        "versions": {"vllm": asked.stdout.strip()},
        "what": "SmolLM2-135M-Instruct at int4 (GPTQ), held against bf16 by KL along its answers. nearest: the same "
        "format, rounded to nearest; coarse: so, with every second level; equal: the same weights in another engine",
        "setting": {
            "alpha": ALPHA, "answer_tokens": ANSWER_TOKENS, "prompts": prompts,
            "client": f"asks for the candidate, one token, again {PAUSE_S:g} s after each answer",
        },
        "runs": rows,
        "targets": [target("canaries that ended as they should", as_expected, len(rows), at_most=False)],
    }  # fmt: skip
    save("canary_vllm", figures, options)


def _prompts(path: Path) -> int:
    gather = [sys.executable, "-m", "benchmarks.control.gather_prompts", str(path), "--each", "6", "--seed", "0"]
    subprocess.run(gather, cwd=ROOT, check=True)  # noqa: S603  (our own)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    lines = [json.dumps({"prompt": row["prompt"], "chat": row["chat"]}) for row in rows if _is_short(row["prompt"])]
    path.write_text("\n".join(lines), encoding="utf-8")
    return len(lines)


def _is_short(prompt: str) -> bool:
    return len(prompt.encode()) <= PROMPT_BYTES


def _config(folder: Path) -> Path:
    bf16, int4 = example_folder() / "bf16", example_folder() / "int4"
    tiers = [
        ("now", "int4", int4),
        ("now", "bf16", bf16),
        ("nearest", "int4", round_to_nearest(bf16, int4, folder / "nearest")),
        ("coarse", "int4", round_to_nearest(bf16, int4, folder / "coarse", step=2)),
        ("equal", "int4", int4),
    ]
    path = folder / "bitladder.toml"
    rows = [TIER.format(model=model, tier=tier, checkpoint=checkpoint) for model, tier, checkpoint in tiers]
    path.write_text(CONFIG + "".join(rows), encoding="utf-8")
    return path


def _row(stack: PrivateStack, folder: Path, candidate: str) -> Figures:
    out, margin, touched = folder / f"canary-{candidate}", RUNS[candidate], 0
    what = ["--model", "now", "--candidate", candidate, "--prompts", str(folder / "prompts.jsonl"), "--url", stack.url]
    how = ["--measure", "kl", "--margin", f"{margin}", "--alpha", f"{ALPHA}", "--answer-tokens", f"{ANSWER_TOKENS}"]
    where = ["--tier", "int4", "--reference", "bf16", "--config", str(folder / "bitladder.toml")]
    how += ["--poll", "1", "--at-once", f"{AT_ONCE}", "--yes"]
    command = [sys.executable, "-m", "bitladder.cli.main", "calibrate", "canary", "run", "-o", str(out)]
    command += [*what, *how, *where]
    with (folder / "said").open("wb") as said:
        canary = subprocess.Popen(command, stdout=said, stderr=said)  # noqa: S603  (our own)
    try:
        while canary.poll() is None:
            touched += _ask(stack) == candidate
            time.sleep(PAUSE_S)
    finally:
        canary.terminate()
        canary.wait()
    if not (out / "report.json").exists():
        sys.exit(f"the canary of {candidate} ended with {canary.returncode}: {(folder / 'said').read_text()}")
    report: dict[str, Any] = json.loads((out / "report.json").read_bytes())
    differences = np.array([pair.difference for pair in read_pairs(out) if pair.losses])
    row = {
        "candidate": candidate,
        **{name: report[name] for name in _KEPT},
        "touched_by_the_client": touched,
        "sd_of_differences": differences.std(),
        "said_before": _said_before(ENDS[candidate][1], margin),
        "power_of_such_pairs": _power(differences, margin),
    }
    say(json.dumps(row))
    return row


def _ask(stack: PrivateStack) -> str:
    body = {"model": "now", "prompt": "Tea is", "max_tokens": 1}
    asked = httpx2.post(f"{stack.url}/v1/completions", json=body, headers={"X-Canary": "true"}, timeout=60)
    return str(asked.raise_for_status().json()["model"])


def _said_before(label: str, margin: float) -> Figures | None:
    """Return what replays on labels and canary/power.py have said; None: there are no labels of such a candidate."""
    rows = json.loads((RESULTS / "canary_replays.json").read_bytes())["rows"]
    for row in rows:
        if (row["measure"], row["margin"], row["candidate"]) == ("kl", margin, label):
            replays = {"difference": row["difference"], "median": row["pairs"]["0.5"], "p90": row["pairs"]["0.9"]}
            return {"replays_on_labels": replays, "power": row["said_before"]["median_pairs"]}
    return None


def _power(differences: NDArray[np.float64], margin: float) -> Figures:
    """Return what canary/power.py says of pairs that all differ by this root mean square, and so much in the mean."""
    mean, size = float(differences.mean()), max(float(np.sqrt((differences**2).mean())), 1e-6)
    power = simulate_power(
        Assumed(difference=mean, discordance=1.0, size=size), margin=margin, alpha=ALPHA, max_pairs=MAX_PAIRS
    )
    return {"median": power.median_pairs, "p90": power.p90_pairs}


if __name__ == "__main__":
    main()
