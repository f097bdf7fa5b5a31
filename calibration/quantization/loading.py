"""Load a checkpoint and its tokenizer from disk. Knows no quantizer."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase


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


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what ignores the libraries' switches: bars that ignore TQDM_DISABLE, a warning of torch.fx."""
    logging.getLogger("torch.fx").setLevel(logging.ERROR)
    with redirect_stderr(io.StringIO()):
        yield
