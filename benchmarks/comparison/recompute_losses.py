"""Compute again, by other code, what `calibrate evaluate` says: perplexity and divergence by kind of text.

It shares nothing with calibration/: it reads the held-out files, cuts passages, fills the chat template and sums by
itself, in transformers, over all probabilities of every token. It runs in the quantizer's environment:
`.venv-quantize/bin/python -m benchmarks.comparison.recompute_losses --reference BF16 NAME=CHECKPOINT...`, with
`--report var/evaluation/report.json` for evaluate's own figures beside these. Evaluate's divergence is a lower bound.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, CompressedTensorsConfig

HELDOUT = Path(__file__).parents[2] / "calibration" / "texts" / "heldout"
RESULTS = Path(__file__).parent / "losses.json"
PASSAGE = 256
_TURN = re.compile(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>", re.DOTALL)


class Passage(NamedTuple):
    """Held-out tokens, a prompt of their own."""

    kind: str
    ids: torch.Tensor  # [1, tokens]


class Losses(NamedTuple):
    """Per token, of one kind of text."""

    tokens: int
    kl: float
    kl_error: float  # the standard error of the mean, passages being drawn
    perplexity_ratio: float
    top1: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=768, help="of each kind")
    parser.add_argument("--chat", choices=("template", "raw"), default="template", help="how a chat is read")
    parser.add_argument("--report", type=Path, help="of `calibrate evaluate` on the same texts")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    passages = list(held_out(options.reference, options.tokens, options.chat))
    with torch.inference_mode():
        reference = load(options.reference)
        expected = [log_probabilities(reference, passage.ids).half() for passage in passages]
        rows = {}
        for name, _, folder in (text.partition("=") for text in options.checkpoints):
            rows[name] = by_kind(load(Path(folder)), passages, expected)
            sys.stderr.write(f"{name}: worst KL {max(losses.kl for losses in rows[name].values()):.4f}\n")
    result: dict[str, Any] = {
        "tokens": options.tokens,
        "chat": options.chat,
        "recomputed": {name: {kind: losses._asdict() for kind, losses in row.items()} for name, row in rows.items()},
    }
    if options.report:
        result["evaluate"] = evaluated(json.loads(options.report.read_text(encoding="utf-8")), rows)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def held_out(tokenizer_folder: Path, budget: int, chat: str) -> Iterator[Passage]:
    """Yield passages of each kind until its budget in tokens is spent."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    for file in sorted(HELDOUT.glob("*.txt")):
        left = budget
        for text in file.read_text(encoding="utf-8").rstrip("\n").split("\n%%\n"):
            turns = [{"role": role, "content": content} for role, content in _TURN.findall(text)]
            if turns and chat == "template":
                ids = tokenizer(
                    tokenizer.apply_chat_template(turns, tokenize=False), add_special_tokens=False
                ).input_ids
            else:
                ids = tokenizer(text, add_special_tokens=False).input_ids
            ids = ids[:left]
            left -= len(ids)
            for start in range(0, len(ids), PASSAGE):
                if len(cut := ids[start : start + PASSAGE]) > 1:
                    yield Passage(file.stem, torch.tensor([cut]))


def load(folder: Path) -> Any:  # noqa: ANN401  (transformers' own)
    """Load in float32; weights are unpacked once where activations stay as they are."""
    quantization = json.loads((folder / "config.json").read_bytes()).get("quantization_config", {})
    rounds = any(group["input_activations"] for group in quantization.get("config_groups", {}).values())
    unpack = {"quantization_config": CompressedTensorsConfig(dequantize=True)} if quantization and not rounds else {}
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **unpack).eval()


def log_probabilities(model: Any, ids: torch.Tensor) -> torch.Tensor:  # noqa: ANN401  (transformers' own)
    logits: torch.Tensor = model(ids).logits[0, :-1].double()
    return logits - logits.logsumexp(-1, keepdim=True)


def by_kind(model: Any, passages: Sequence[Passage], expected: Sequence[torch.Tensor]) -> dict[str, Losses]:  # noqa: ANN401
    """Return the losses of a model against what its reference expects."""
    sums: dict[str, list[tuple[int, float, float, int]]] = {}
    for passage, stored in zip(passages, expected, strict=True):
        ours, theirs = log_probabilities(model, passage.ids), stored.double()
        following = torch.arange(len(ours)), passage.ids[0, 1:]
        divergence = (theirs.exp() * (theirs - ours)).sum()
        loss = (theirs[following] - ours[following]).sum()
        same = (ours.argmax(-1) == theirs.argmax(-1)).sum()
        sums.setdefault(passage.kind, []).append((len(ours), float(divergence), float(loss), int(same)))
    return {kind: summed(rows) for kind, rows in sums.items()}


def summed(rows: Sequence[tuple[int, float, float, int]]) -> Losses:
    tokens = sum(row[0] for row in rows)
    kl = sum(row[1] for row in rows) / tokens
    spread = sum((row[1] - kl * row[0]) ** 2 for row in rows)
    return Losses(
        tokens=tokens,
        kl=round(kl, 5),
        kl_error=round(math.sqrt(spread * len(rows) / max(len(rows) - 1, 1)) / tokens, 5),
        perplexity_ratio=round(math.exp(sum(row[2] for row in rows) / tokens), 5),
        top1=round(sum(row[3] for row in rows) / tokens, 4),
    )


def evaluated(report: Any, rows: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401  (JSON)
    """Return evaluate's figures of the same checkpoints and kinds, in the same words."""
    beside: dict[str, Any] = {}
    for tier in report["tiers"]:
        for kind in rows.get(tier["tier"], ()):
            if f"kl_mean.{kind}" in tier["metrics"]:
                beside.setdefault(tier["tier"], {})[kind] = {
                    "kl_bound": round(tier["metrics"][f"kl_mean.{kind}"]["value"], 5),
                    "perplexity_ratio": round(1 / tier["recovery"][f"perplexity.{kind}"]["value"], 5),
                    "top1": round(tier["metrics"][f"top1.{kind}"]["value"], 4),
                }
    return beside


if __name__ == "__main__":
    main()
