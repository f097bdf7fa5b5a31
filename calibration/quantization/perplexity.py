"""Load a checkpoint from disk and compute its perplexity on the held-out text. Knows no quantizer."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from calibration.texts.packaged import heldout_texts


def load_model(checkpoint: Path) -> PreTrainedModel:
    """Load in float32: exact for bf16 weights, and several times faster than bf16 on a CPU without AMX."""
    return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()


def load_tokenizer(checkpoint: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(checkpoint)


def copy_tokenizer(reference: Path, into: Path) -> None:
    """Write the tokenizer of one checkpoint into another, as it is.

    Not one that calibrated: with `truncation=True` a tokenizer keeps its last limit, and saves it.
    """
    load_tokenizer(reference).save_pretrained(into)


def measure_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> float:
    """Return exp of the mean negative log likelihood of a held-out token, each passage for itself."""
    total, tokens = 0.0, 0
    with torch.inference_mode():
        for text in heldout_texts():
            ids = tokenizer(text, return_tensors="pt").input_ids
            predicted = ids.shape[1] - 1
            total += float(model(ids, labels=ids).loss) * predicted
            tokens += predicted
    return math.exp(total / tokens)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what ignores the libraries' switches: bars that ignore TQDM_DISABLE, a warning of torch.fx."""
    logging.getLogger("torch.fx").setLevel(logging.ERROR)
    with redirect_stderr(io.StringIO()):
        yield
