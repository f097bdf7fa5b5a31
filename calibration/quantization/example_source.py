"""Read the example's model out of its GGUF file. Knows no quantizer."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel, PreTrainedTokenizerBase


def unpack(source: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the model in bf16, and its tokenizer with the chat template."""
    model = AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
    )
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    # GGUF names the begin of a turn as the end token too; the model's own configuration knows better.
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(model.config.eos_token_id)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(model.config.pad_token_id)
    tokenizer.clean_up_tokenization_spaces = False  # meant for WordPiece; it would eat spaces before punctuation
    tokenizer.model_max_length = model.config.max_position_embeddings
    return model, tokenizer
