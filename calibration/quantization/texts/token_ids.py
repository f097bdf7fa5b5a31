"""From texts to the tokens that a model is served: chats go through its own template."""

from __future__ import annotations

import re
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from calibration.quantization.recipe import Recipe
from calibration.quantization.texts.token_budget import CalibrationTokens, fill

_CHATML = "<|im_start|>"
_TURN = re.compile(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>", re.DOTALL)


def token_ids(text: str, tokenizer: PreTrainedTokenizerBase, limit: int) -> list[int]:
    """Return the first tokens of a text; a chat in ChatML becomes one in the model's words, if it has any."""
    chat = _templated(text, tokenizer) if text.startswith(_CHATML) else None
    ids: list[int] = tokenizer(chat or text, add_special_tokens=chat is None).input_ids
    return ids[:limit]


def calibration_tokens(
    recipe: Recipe, tokenizer: PreTrainedTokenizerBase, *, samples: Sequence[str], general: Sequence[str]
) -> CalibrationTokens | None:
    """Return what a recipe calibrates on; None for one that looks at no texts."""
    if recipe.mix is None:
        return None
    return fill(recipe.mix, lambda text, limit: token_ids(text, tokenizer, limit), samples=samples, general=general)


def _templated(text: str, tokenizer: PreTrainedTokenizerBase) -> str | None:
    turns = [{"role": role, "content": content} for role, content in _TURN.findall(text)]
    if not turns or not tokenizer.chat_template:
        return None
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False))
    except Exception:
        return None
