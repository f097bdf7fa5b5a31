"""Held-out text: a JSONL file of one's own, or what is packaged here and in the environment."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from pydoc_data.topics import topics

from calibration.errors import InputError
from calibration.evaluate.problems import load_problems
from calibration.texts.jsonl import read_line, read_lines
from calibration.texts.packaged import heldout_samples

_KIND = re.compile(r"[a-z0-9][a-z0-9_-]*")
# Paragraphs of Python's reference that are sentences: no lists, no tables, no grammar.
_NOT_PROSE = (" ", "*", "|", "+", ">")
_SHORTEST_PARAGRAPH = 200


@dataclass(frozen=True, slots=True)
class Text:
    """One held-out text."""

    kind: str
    text: str


def digest(texts: Iterable[Text]) -> str:
    """Return the sha256 over kinds and texts, in their order."""
    whole = "\0".join(f"{one.kind}\0{one.text}" for one in texts)
    return hashlib.sha256(whole.encode()).hexdigest()


def read_texts(path: Path) -> list[Text]:
    """Read lines of {"text": …, "kind": …}; `prompt` may stand for `text`, and without a kind it is `text`.

    Raises:
        InputError: the file is not such a file; names the line.

    """
    return read_lines(path, "held-out text", _text)


def packaged_texts() -> list[Text]:
    """Return our own passages, HumanEval's solutions as code, Python's reference as prose, and the demo's prompts."""
    own = [Text(_kind(sample), sample) for sample in heldout_samples()]
    code = [Text("code", problem.prompt + problem.solution) for problem in load_problems()]
    prose = [Text("prose", text) for name in sorted(topics) if (text := _sentences(topics[name]))]
    return own + code + prose + [Text("prompts", prompt) for prompt in _demo_prompts()]


def by_kind(texts: Sequence[Text]) -> dict[str, list[str]]:
    kinds: dict[str, list[str]] = {}
    for one in texts:
        kinds.setdefault(one.kind, []).append(one.text)
    return kinds


def _text(line: str, where: str) -> Text:
    text, fields = read_line(line, where)
    kind = fields.get("kind", "text")
    if not isinstance(kind, str) or not _KIND.fullmatch(kind):
        raise InputError(f'{where}: "kind" must be of a-z, 0-9, _ and -, got {kind!r}')
    return Text(kind, text)


def _kind(sample: str) -> str:
    if sample.startswith("<|im_start|>"):
        return "prompts"
    try:
        ast.parse(sample)
    except SyntaxError:
        return "prose"
    return "code"


def _sentences(topic: str) -> str:
    paragraphs = re.split(r"\n\s*\n", topic)
    prose = [
        one
        for one in paragraphs
        if len(one) >= _SHORTEST_PARAGRAPH and not one.startswith(_NOT_PROSE) and "::=" not in one
    ]
    return "\n\n".join(prose)


def _demo_prompts() -> list[str]:
    lines = (resources.files("bitladder") / "cli" / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["prompt"] for line in lines]
