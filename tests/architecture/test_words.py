"""Words that the field has a better one for do not come back, in names, messages or pages.

Names are read as words: `put_back`, `PutBack` and "put back" are one. docs/glossary.md lists the same table for people.
"""

from __future__ import annotations

import ast
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import ROOT


class Word(NamedTuple):
    """A word that is not used: what is said instead, how it is found, and where it may stand."""

    instead: str
    pattern: str
    allowed: tuple[str, ...] = ()  # paths begin so
    within: tuple[str, ...] = ("",)  # the only paths that are searched


PACKAGES = ("bitladder/", "dispatcher/", "workers/", "calibration/")
OLD_RECORDS = "tests/bitladder/test_decision.py"
CODE = (*PACKAGES, "benchmarks/", "monitoring/", "tests/")
WORDS = {
    "quarantine": Word("dead letters", r"\bquarantin\w*"),
    "seal": Word("sign", r"\b(un)?seal(s|ed|ing)?\b"),
    "give_back, put_back": Word("requeue", r"\b(give_back|put_back|giveback)"),
    "door": Word("endpoint, handler", r"\bdoors?\b"),
    "MOST_, LEAST_": Word("MAX_, MIN_", r"\bMOST_|\bLEAST_"),
    # In records of earlier versions the word stands as it did.
    "piece": Word("chunk", r"\b(?<!word )pieces?\b", ("bitladder/decision.py", "bitladder/contract.py", OLD_RECORDS)),
    "LetIn": Word("Admitted", r"\bLetIn\b"),
    "LadderStore, LadderWatch": Word("ReleaseStore, ReleaseWatch", r"\bLadder(Store|Watch|File)\b|\banother ladder\b"),
    "house rules": Word("architecture tests", r"\bhouse rules?\b"),
    "ward": Word("isolation", r"\bwards?\b"),
    "suspect, suspicion": Word("isolated job, crash count", r"\bsuspects?\b|\bsuspicions?\b"),
    "company": Word("group", r"\bcompan(y|ies)\b"),
    "guard": Word("output check, authentication", r"\b(?<!_)guard(ed)?\b(?! against)", within=(*PACKAGES, "docs/")),
    "gate": Word("auth", r"\bgates?\b", within=("dispatcher/", "tests/dispatcher/")),
    "settle (to write)": Word("flush, freeze, sync", r"\bsettle\b", within=("bitladder/queue/", "bitladder/gc_freeze")),
    "patience": Word("latency budget, grace time", r"\bpatien(ce|t)\b"),
    "Gateway": Word("IntakeState", r"\bGateway\b(?! (Timeout|Time-out))", within=CODE),
    "Turn": Word("RolloutLock", r"\bclass Turn\b|\bTurn\(", within=PACKAGES),
    "climb": Word("escalate", r"\bclimb(s|ed|ing|able)?\b", within=CODE),
    # "makers" is a key of the fingerprint: with another one, every checkpoint would be made again.
    "Maker": Word("Quantizer", r"\bmakers?\b", allowed=("calibration/quantization/recipe.py", "docs/glossary.md")),
    "Workshop": Word("CheckpointBuilder", r"\bworkshop\b"),
    "Order": Word("QuantizeSpec", r"\bclass Order\b", within=("calibration/",)),
    "Held": Word("OffloadLimit", r"\bclass Held\b", within=PACKAGES),
    "Place": Word("CheckpointCache", r"\bclass Place\b", within=PACKAGES),
    "Subject": Word("SourceModel", r"\bclass Subject\b", within=PACKAGES),
    "Assignment": Word("QuantizeTask", r"\bassignments?\b", within=("calibration/", "tests/calibration/")),
    "become": Word("exec_in", r"\bdef become\b"),
    "Wish": Word("EvaluationOptions", r"\bclass Wish\b"),
    "Given": Word("CheckpointArg", r"\bclass Given\b"),
    "Numbers": Word("NumberFormat", r"\bclass Numbers\b"),
    "Mix": Word("CalibrationMix", r"\bclass Mix\b"),
    "a endpoint": Word("an endpoint", r"\ba endpoint\b"),
    "word": Word("reason", r"\bword\b", within=("bitladder/queue/scripts/",)),
    "look": Word("poll, sample", r"\bLOOK_EVERY_S\b|\b_?LOOK_S\b"),
    "away": Word("unreachable", r"\b(is|was|be|redis) away\b"),
    "published": Word(
        "finished, put in place: only a release is published",
        r"\bpublish(ed|es|ing)?\b",
        within=("calibration/quantization/", "calibration/sample/", "calibration/audit/"),
    ),
    "give back": Word("requeue", r"\bg[ia]v(e|es|en|ing) (\w+ ){0,3}back\b", ("calibration/", "tests/calibration/")),
}
# Names of variables that do not say what they hold.
EMPTY_NAME = re.compile(
    "_*(by|do|doing|each|every|found|given|got|has|have|its|least|mine|most|of|one|own|said|tell|theirs|told|wanted|who)_*",
    re.IGNORECASE,
)
NAMED = {".py", ".lua", ".md", ".toml", ".json", ".yaml", ".cfg", ".sh", ""}
NOT_READ = (
    "CHANGELOG.md",  # says what was renamed
    "LICENSE",
    "docs/glossary.md",
    "docs/log.md",  # what was written then
    "requirements/",
    "benchmarks/results/",
    "tests/architecture/test_words.py",
    "tests/compose/compose-spec",
    "tests/compose/kubernetes/crds/",
)


@cache
def texts() -> dict[str, tuple[str, str]]:
    """Return the text of every file that is read, and the same with names as words."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True)
    paths = [path for path in listed.stdout.decode().splitlines() if (ROOT / path).is_file()]
    read = [path for path in paths if Path(path).suffix in NAMED and not path.startswith(NOT_READ)]
    contents = {path: (ROOT / path).read_text(encoding="utf-8") for path in read}
    return {path: (text, as_words(text)) for path, text in contents.items()}


def as_words(text: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|_", " ", text).lower()


def places(word: Word) -> list[str]:
    """Return each line that has the word, with its file and number."""
    pattern = re.compile(word.pattern)
    return [
        f"{path}:{number}: {line.strip()}"
        for path, (text, words) in texts().items()
        if path.startswith(word.within) and not (word.allowed and path.startswith(word.allowed))
        if pattern.search(text) or pattern.search(words)
        for number, line in enumerate(text.splitlines(), start=1)
        if pattern.search(line) or pattern.search(as_words(line))
    ]


@pytest.mark.parametrize("name", list(WORDS))
def test_a_word_does_not_come_back(name: str) -> None:
    assert places(WORDS[name]) == [], f"say {WORDS[name].instead}"


@pytest.mark.parametrize(
    ("name", "text"),
    [("seal", "def unseal_it(job)"), ("door", "class HttpDoor:"), ("MOST_, LEAST_", "MOST_JOBS = 4")],
)
def test_a_word_is_found_in_every_spelling(name: str, text: str) -> None:
    assert re.search(WORDS[name].pattern, text) or re.search(WORDS[name].pattern, as_words(text))


def test_every_variable_has_a_name_that_says_what_it_holds() -> None:
    sources = {path: text for path, (text, _) in texts().items() if path.startswith(PACKAGES) and path.endswith(".py")}
    named = [
        (f"{path}:{node.lineno}: {name}", name)
        for path, source in sources.items()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.arg | ast.Name) and (name := variable(node))
    ]

    assert len(named) > 5000
    assert [place for place, name in named if EMPTY_NAME.fullmatch(name)] == []


def variable(node: ast.arg | ast.Name) -> str:
    if isinstance(node, ast.arg):
        return node.arg
    return node.id if isinstance(node.ctx, ast.Store) else ""


def test_the_glossary_lists_the_same_words() -> None:
    page = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8").partition("## Words that are not used")[2]

    assert re.findall(r"^\| (.+) \| (.+) \|$", page, re.MULTILINE)[2:] == [
        (name, word.instead) for name, word in WORDS.items()
    ]
