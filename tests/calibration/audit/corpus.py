"""A thousand prompts of known kinds: the texts that come with bitladder and with Python, and texts made from them.

`python -m tests.calibration.audit.corpus FILE` writes them as JSONL; their audit is in docs/calibration/audit.md.
"""

from __future__ import annotations

import ast
import inspect
import json
import random
import sys
from collections import defaultdict
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pydoc_data.topics import topics
from textwrap import dedent

from calibration.texts.packaged import packaged_calibration, packaged_heldout
from tests.conftest import ROOT

MODULES = "argparse ast bisect calendar csv dataclasses difflib email.message fractions heapq http.client json.decoder"
MORE = "logging pathlib queue random shutil statistics string tarfile textwrap threading tokenize typing zipfile"
SHARES = {"code": 330, "prose": 300, "generated prose": 150, "json": 80, "log": 40, "chat": 68}
ASKED = ("Explain this function:", "Write a test for this:", "Is there a bug in this?", "Make this faster:", "")


def thousand() -> list[dict[str, object]]:
    """Return 1,000 entries, always the same for one version of Python."""
    chance = random.Random(11)
    kinds = ("code", "prose", "logs", "json")
    shipped = [text for kind, text in sorted(packaged_calibration() + packaged_heldout()) if kind in kinds]
    packaged: list[dict[str, object]] = [{"prompt": text} for text in shipped[:32]]
    made: dict[str, list[dict[str, object]]] = {
        "code": [{"prompt": text} for text in _code(chance)],
        "prose": [{"prompt": text} for text in _prose()],
        "generated prose": [{"prompt": text} for text in _generated(chance, SHARES["generated prose"])],
        "json": [{"prompt": text} for text in _json(chance, SHARES["json"])],
        "log": [{"prompt": text} for text in _log(chance, SHARES["log"])],
        "chat": list(_chat(chance, SHARES["chat"])),
    }
    entries = packaged + [entry for kind, count in SHARES.items() for entry in chance.sample(made[kind], count)]
    return chance.sample(entries, len(entries))


def _code(chance: random.Random) -> Iterator[str]:
    for name in f"{MODULES} {MORE}".split():
        source = inspect.getsource(import_module(name))
        lines = source.splitlines()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef) and 4 <= (node.end_lineno or 0) - node.lineno <= 60:
                text = dedent("\n".join(lines[node.lineno - 1 : node.end_lineno]))
                asked = chance.choice(ASKED)
                yield f"{asked}\n{text}" if asked else text


def _prose() -> list[str]:
    """Return paragraphs of Python's reference, and the demo's prompts."""
    chunks = [" ".join(chunk.split()) for text in topics.values() for chunk in str(text).split("\n\n")]
    lines = (ROOT / "bitladder" / "cli" / "demo" / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    questions = [entry["prompt"] for entry in map(json.loads, lines) if entry["kind"] in ("prose", "chat", "batch")]
    return questions + [
        chunk for chunk in chunks if 80 < len(chunk) < 1500 and chunk[:1].isupper() and chunk[-1:] == "."
    ]


def _generated(chance: random.Random, count: int) -> Iterator[str]:
    """Yield texts of a chain of word pairs: their words are a language's, their sense is nobody's."""
    words = " ".join(_prose()).split()
    following: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for first, second, third in zip(words, words[1:], words[2:], strict=False):
        following[first, second].append(third)
    for _ in range(count):
        at = chance.randrange(len(words) - 1)
        pair, text = (words[at], words[at + 1]), [words[at], words[at + 1]]
        for _ in range(chance.randrange(8, 180)):
            pair = (pair[1], chance.choice(following[pair] or words))
            text.append(pair[1])
        yield " ".join(text)


def _json(chance: random.Random, count: int) -> Iterator[str]:
    for number in range(count):
        rows = [
            {
                "id": chance.randrange(10**6),
                "name": chance.choice(ASKED),
                "total": round(chance.random() * 100, 2),
                "paid": True,
            }
            for _ in range(chance.randrange(1, 12))
        ]
        yield json.dumps({"orders": rows, "page": number}, indent=2 if number % 2 else None)


def _log(chance: random.Random, count: int) -> Iterator[str]:
    for number in range(count):
        lines = [
            f"2026-11-{chance.randrange(1, 29):02} 08:{chance.randrange(60):02}:{chance.randrange(60):02} "
            f"{chance.choice(('INFO', 'WARN', 'ERROR'))} worker {chance.randrange(9)}: job {chance.randrange(10**6)} "
            f"took {chance.randrange(900)} ms"
            for _ in range(2 + number % 20)
        ]
        yield "\n".join(lines)


def _chat(chance: random.Random, count: int) -> Iterator[dict[str, object]]:
    prose = _prose()
    for _ in range(count):
        turns = [chance.choice(prose) for _ in range(3)]
        roles = ("user", "assistant", "user")
        yield {"messages": [{"role": role, "content": text} for role, text in zip(roles, turns, strict=True)]}


def write(path: Path) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in thousand()), encoding="utf-8")
    return path


if __name__ == "__main__":
    write(Path(sys.argv[1]))
