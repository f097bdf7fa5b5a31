"""config.json against the tokenizer: vocabulary, special tokens, chat template."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec

from calibration.inspection.json_text import parse_json
from calibration.inspection.model import ModelConfig
from calibration.inspection.verdict import CheckName, Findings

_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")
# Vocabularies are padded to a multiple of a kernel's width, at most this.
_MAX_PADDING = 1024


def check_tokenizer(folder: Path, config: ModelConfig, findings: Findings) -> None:
    settings = _read(folder / "tokenizer_config.json", findings) or {}
    if not (folder / "chat_template.jinja").is_file() and not settings.get("chat_template"):
        findings.warn(CheckName.TOKENIZER, "there is no chat template: /v1/chat/completions will answer 400")
    if not (folder / "tokenizer.json").exists():
        if (folder / "tokenizer.model").exists():
            findings.warn(CheckName.TOKENIZER, "only tokenizer.model is there: its vocabulary was not looked into")
        else:
            findings.fail(CheckName.TOKENIZER, "there is neither tokenizer.json nor tokenizer.model")
        return
    tokenizer = _read(folder / "tokenizer.json", findings)
    if tokenizer is None:
        return
    try:
        tokens = _tokens(tokenizer)
    except (AttributeError, TypeError, KeyError, IndexError, ValueError) as error:
        findings.fail(CheckName.TOKENIZER, f"tokenizer.json is damaged: {error!r:.200}")
        return
    _check_vocabulary(tokens, config, findings)
    _check_special(tokens, settings, config, findings)
    _check_generation(folder, tokens, findings)
    if truncation := tokenizer.get("truncation"):
        max_length = truncation.get("max_length") if isinstance(truncation, dict) else truncation
        findings.warn(CheckName.TOKENIZER, f"tokenizer.json cuts every text at {max_length} tokens by default")
    findings.ok(CheckName.TOKENIZER, f"{len(tokens)} tokens of {config.vocab_size}, special tokens and template fit")


def _read(path: Path, findings: Findings) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        content = parse_json(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("expected an object")
    except (OSError, ValueError) as error:
        findings.fail(CheckName.TOKENIZER, f"{path.name} is damaged: {error!s:.200}")
        return None
    return content


def _tokens(tokenizer: dict[str, Any]) -> dict[str, int]:
    """Return text -> id of all tokens; a unigram model lists them, others map them."""
    vocabulary = (tokenizer.get("model") or {}).get("vocab") or {}
    if isinstance(vocabulary, list):
        vocabulary = {entry[0]: number for number, entry in enumerate(vocabulary)}
    added = {token["content"]: token["id"] for token in tokenizer.get("added_tokens") or []}
    return msgspec.convert({**vocabulary, **added}, dict[str, Annotated[int, msgspec.Meta(ge=0)]])


def _check_vocabulary(tokens: dict[str, int], config: ModelConfig, findings: Findings) -> None:
    highest = max(tokens.values(), default=-1)
    if not tokens:
        findings.fail(CheckName.TOKENIZER, "tokenizer.json has no tokens")
    elif highest >= config.vocab_size:
        findings.fail(
            CheckName.TOKENIZER,
            f"tokens go up to {highest}, config.json has room for {config.vocab_size}: out of range",
        )
    elif config.vocab_size - highest - 1 > _MAX_PADDING:
        findings.warn(
            CheckName.TOKENIZER, f"vocab_size is {config.vocab_size}, tokens end at {highest}: another one's?"
        )


def _check_special(tokens: dict[str, int], settings: dict[str, Any], config: ModelConfig, findings: Findings) -> None:
    """Compare the special tokens by name and by number."""
    ids = set(tokens.values())
    for name in _SPECIAL:
        text = _text(settings.get(name))
        if text is not None and text not in tokens:
            findings.fail(CheckName.TOKENIZER, f"{name} is {text!r}, which tokenizer.json does not know")
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    for name, number in (
        ("bos_token_id", config.bos_token_id),
        ("pad_token_id", config.pad_token_id),
        *(("eos_token_id", end) for end in ends),
    ):
        if number is not None and number not in ids:
            findings.fail(CheckName.TOKENIZER, f"config.json: {name} is {number}, which is no token")
    end = tokens.get(_text(settings.get("eos_token")) or "")
    if end is not None and None not in ends and end not in ends:
        findings.warn(CheckName.TOKENIZER, f"eos_token is {end}, config.json says {config.eos_token_id}")


def _text(token: Any) -> str | None:  # noqa: ANN401  (JSON)
    """Return the text of a special token, which is written in either of two ways."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def _check_generation(folder: Path, tokens: dict[str, int], findings: Findings) -> None:
    generation = _read(folder / "generation_config.json", findings) or {}
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        numbers = generation.get(name)
        for number in numbers if isinstance(numbers, list) else [numbers]:
            if number is not None and number not in tokens.values():
                findings.fail(CheckName.TOKENIZER, f"generation_config.json: {name} is {number}, which is no token")
