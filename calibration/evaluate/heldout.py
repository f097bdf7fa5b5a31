"""Held-out text to measure on: a sampled set's held-out half, a JSONL file of the user, or what is packaged."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

from calibration.artifacts.digest import text_id, texts_digest
from calibration.errors import InputError
from calibration.evaluate.human_eval import load_problems
from calibration.sample.sets import load, set_of
from calibration.sample.strata import HELDOUT
from calibration.texts.jsonl import read_line, read_lines
from calibration.texts.packaged import packaged_heldout

_KIND = re.compile(r"[a-z0-9][a-z0-9_-]*")
# Beginnings of paragraphs of Python's reference that are no sentences: lists, tables, grammar.
_NOT_PROSE = (" ", "*", "|", "+", ">")
_MIN_PARAGRAPH_CHARS = 200
# Packaged kinds under the names that reports have for them.
_KINDS = {"chat": "prompts"}


@dataclass(frozen=True, slots=True)
class HeldoutText:
    """One held-out text, and what its set knows about it."""

    kind: str
    text: str
    language: str = ""  # or programming language
    group: str = ""  # of the record that it came from (`calibrate sample --group`)

    @property
    def id(self) -> str:
        """The id that a sampled set has for this text."""
        return text_id(self.text)


def heldout_digest(texts: Iterable[HeldoutText]) -> str:
    """Return the digest of kinds and texts, in their order."""
    return texts_digest(f"{text.kind}\0{text.text}" for text in texts)


def read_heldout(path: Path) -> list[HeldoutText]:
    """Read held-out text: the held-out half of a sampled set, which is checked as a whole, or any JSONL file of texts.

    Raises:
        InputError: the file cannot be read, is empty, or is another file of a sampled set than its held-out half.
        CalibrationError: the set's two halves share a text.

    """
    folder = set_of(path)
    if folder is None:
        return read_texts(path)
    heldout = f"{HELDOUT}.jsonl"
    if path.resolve().name != heldout:
        raise InputError(f"--heldout: {str(path)!r} is not held out, expected {str(folder / heldout)!r}")
    if texts := [HeldoutText(text.kind, text.text, text.language, text.group) for text in load(folder).heldout]:
        return texts
    raise InputError(f"--heldout: there is no text in {str(path)!r}: sample more prompts, so that some are held out")


def read_texts(path: Path) -> list[HeldoutText]:
    """Read lines of {"text": …, "kind": …}, perhaps with `language` and `group`; `prompt` may stand for `text`.

    A line without a kind has kind `text`.

    Raises:
        InputError: the file is not such a file; names the line.

    """
    return read_lines(path, "held-out text", _read_text)


def packaged_texts() -> list[HeldoutText]:
    """Return our own passages, HumanEval's solutions as code, Python's reference as prose, and the demo's prompts."""
    passages = [HeldoutText(_KINDS.get(kind, kind), text) for kind, text in packaged_heldout()]
    code = [HeldoutText("code", problem.prompt + problem.solution) for problem in load_problems()]
    prose = [HeldoutText("prose", text) for name in sorted(topics) if (text := _sentences(topics[name]))]
    return passages + code + prose + [HeldoutText("prompts", prompt) for prompt in _demo_prompts()]


def by_kind(texts: Sequence[HeldoutText]) -> dict[str, list[str]]:
    kinds: dict[str, list[str]] = {}
    for text in texts:
        kinds.setdefault(text.kind, []).append(text.text)
    return kinds


def _read_text(line: str, where: str) -> HeldoutText:
    text, fields = read_line(line, where)
    kind = fields.get("kind", "text")
    if not isinstance(kind, str) or not _KIND.fullmatch(kind):
        raise InputError(f'{where}: "kind" must be of a-z, 0-9, _ and -, got {kind!r}')
    language, group = (_name(fields, name, where) for name in ("language", "group"))
    return HeldoutText(kind, text, language, group)


def _name(fields: dict[str, Any], field: str, where: str) -> str:  # Any: JSON
    value = fields.get(field, "")
    if not isinstance(value, str) or not value.isprintable():  # half a surrogate pair is not, and could not be reported
        raise InputError(f'{where}: "{field}" must be a text without control characters, got {value!r}')
    return value


def _sentences(topic: str) -> str:
    """Return the paragraphs of a topic of Python's reference that are prose."""
    paragraphs = re.split(r"\n\s*\n", topic)
    prose = [
        paragraph
        for paragraph in paragraphs
        if len(paragraph) >= _MIN_PARAGRAPH_CHARS and not paragraph.startswith(_NOT_PROSE) and "::=" not in paragraph
    ]
    return "\n\n".join(prose)


def _demo_prompts() -> list[str]:
    lines = (resources.files("bitladder") / "cli" / "demo" / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["prompt"] for line in lines]
