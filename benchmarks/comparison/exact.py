"""Compare a checkpoint with its reference by all probabilities of every token, in transformers: exact, and slow.

`calibrate evaluate` asks the engine, which sends the most likely tokens only; this tells how far its figures are from
the exact ones. It runs in the quantizer's environment:
`.venv-quantize/bin/python -m benchmarks.comparison.exact CHECKPOINT REFERENCE TEXTS` prints {kind: {perplexity,
reference, kl, top1, tokens}}; TEXTS is JSON lines of {"kind": ..., "text": ...}.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, CompressedTensorsConfig, PreTrainedModel, PreTrainedTokenizerBase

from calibration.quantization.loading import load_model, load_tokenizer, quiet
from calibration.texts.passages import cut_text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("reference", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--tokens", type=int, default=4096, help="of each kind")
    options = parser.parse_args()
    kinds: dict[str, list[str]] = {}
    for line in options.texts.read_text(encoding="utf-8").splitlines():
        fields = json.loads(line)
        kinds.setdefault(fields["kind"], []).append(fields["text"])
    with quiet():
        reference, tokenizer = load_model(options.reference), load_tokenizer(options.reference)
        model = load(options.checkpoint)
        divergences = {
            kind: compare(model, reference, list(passages(texts, tokenizer, options.tokens)))
            for kind, texts in kinds.items()
        }
    sys.stdout.write(json.dumps(divergences) + "\n")


def load(checkpoint: Path) -> PreTrainedModel:
    """Load in float32; weights are unpacked once instead of in every step where activations are not quantized."""
    quantization = json.loads((checkpoint / "config.json").read_bytes()).get("quantization_config", {})
    if quantization.get("quant_method") == "awq":
        from calibration.quantization.autoawq import dequantized  # is in AutoAWQ's environment only

        return dequantized(checkpoint)
    if any(group["input_activations"] for group in quantization.get("config_groups", {}).values()) or not quantization:
        return load_model(checkpoint)
    return AutoModelForCausalLM.from_pretrained(
        checkpoint, dtype=torch.float32, quantization_config=CompressedTensorsConfig(dequantize=True)
    ).eval()


def passages(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, budget: int) -> Iterator[torch.Tensor]:
    """Yield passages [1, tokens] until the budget is spent: those that `calibrate evaluate` asks the engine."""
    for text in texts:
        for passage in cut_text(tokenizer(text, add_special_tokens=False).input_ids, budget):
            yield torch.tensor([passage])
            budget -= len(passage)
        if budget <= 1:
            return


def compare(model: PreTrainedModel, reference: PreTrainedModel, texts: Sequence[torch.Tensor]) -> Mapping[str, float]:
    """Return both perplexities, KL(reference, model) in nats per token, and the share of equal most likely tokens."""
    total = torch.zeros(4, dtype=torch.float64)  # loss, the reference's loss, divergence, equal tokens
    count = 0
    for ids in texts:
        ours, theirs, actual = _log_probabilities(model, ids), _log_probabilities(reference, ids), ids[0, 1:, None]
        total += torch.stack(
            [
                -ours.gather(1, actual).sum(dtype=torch.float64),
                -theirs.gather(1, actual).sum(dtype=torch.float64),
                (theirs.exp() * (theirs - ours)).sum(dtype=torch.float64),
                (ours.argmax(-1) == theirs.argmax(-1)).sum(dtype=torch.float64),
            ]
        )
        count += len(actual)
    loss, reference_loss, divergence, equal = (total / count).tolist()
    return {
        "perplexity": math.exp(loss),
        "reference": math.exp(reference_loss),
        "kl": divergence,
        "top1": equal,
        "tokens": count,
    }


def _log_probabilities(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """Return [tokens - 1, vocabulary]: the prediction of every token but the first."""
    with torch.inference_mode():
        logits: torch.Tensor = model(ids).logits[0, :-1].float()
        return logits.log_softmax(-1)


if __name__ == "__main__":
    main()
