"""Gather natural prompts of many sources from what a machine has installed, and write them as JSONL for `label`.

    python -m benchmarks.control.gather_prompts prompts.jsonl --each 14 --seed 0

Manuals, messages of programs in many languages, sources, configuration, logs, licences, exams of ../shared/data. A
source that a machine lacks is left out and named on stderr. Texts are excerpts, each of one file, drawn by the seed;
the file is for this machine alone: the texts are other people's.
"""

from __future__ import annotations

import argparse
import gettext
import glob
import gzip
import json
import random
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from calibration.evaluate.human_eval import load_problems, spread
from calibration.texts.packaged import packaged_calibration, packaged_heldout

ROOT = Path(__file__).parent.parent.parent
LABELS = ROOT.parent / "shared" / "data" / "routellm-labels.jsonl.gz"
LONGEST, SHORTEST = 640, 120
Line = dict[str, Any]
_RUST = f"{Path.home()}/.rustup/toolchains/*/share/doc/rust/html"
_PYTHON = str(Path(json.__file__).parent.parent)
_LANGUAGES = {"de": "german", "fr": "french", "es": "spanish", "it": "italian", "pt_BR": "portuguese", "ru": "russian",
              "uk": "ukrainian", "pl": "polish", "sv": "swedish", "ja": "japanese", "zh_CN": "chinese", "ko": "korean",
              "tr": "turkish", "el": "greek"}  # fmt: skip
_OTHER_SCRIPTS = ("chinese", "japanese", "russian")
_CATALOGUES = ("git", "gnupg2", "dpkg", "wget", "postgres-15", "bash", "tar")
_PACKAGES, _MANUALS = ("asyncio", "email", "http", "unittest", "xml"), ("de", "fr", "es", "it", "ja", "pl")
# Source, kind, where its files are, and how a file becomes text.
_FILES: tuple[tuple[str, str, str], ...] = (
    *((f"python-{name}", "python", f"{_PYTHON}/{name}/**/*.py") for name in _PACKAGES),
    ("python-modules", "python", f"{_PYTHON}/*.py"),
    ("numpy-code", "python", "/**/site-packages/numpy/lib/*.py"),
    ("npm-code", "javascript", "/usr/lib/node_modules/npm/lib/**/*.js"),
    ("moment-locales", "javascript", "/usr/share/javascript/moment/locale/*.js"),
    ("linux-headers", "c", "/usr/include/linux/*.h"),
    ("openssl-headers", "c", "/usr/include/openssl/*.h"),
    ("libstdc++", "c++", "/usr/include/c++/12/bits/*.h"),
    ("llvm-headers", "c++", "/usr/include/llvm-14/llvm/ADT/*.h"),
    ("postgres-extensions", "sql", "/usr/share/postgresql/15/extension/*.sql"),
    ("perl-modules", "perl", "/usr/share/perl/5.36.0/**/*.pm"),
    ("dpkg-perl", "perl", "/usr/share/perl5/Dpkg/**/*.pm"),
    ("queue-lua", "lua", f"{ROOT}/bitladder/queue/scripts/**/*.lua"),
    ("cmake-modules", "cmake", "/usr/share/cmake-3.25/Modules/*.cmake"),
    ("shell-completions", "shell", "/usr/share/bash-completion/completions/*"),
    ("npm-packages", "json", "/usr/lib/node_modules/npm/node_modules/*/package.json"),
    ("prometheus-dashboards", "json", f"{ROOT}/monitoring/**/*.json"),
    ("cloud-schemas", "yaml", "/usr/lib/google-cloud-sdk/lib/googlecloudsdk/schemas/**/*.yaml"),
    ("cloud-commands", "yaml", "/usr/lib/google-cloud-sdk/lib/surface/**/*.yaml"),
    ("mime-types", "xml", "/usr/share/mime/application/*.xml"),
    ("numpy-tables", "csv", "/**/site-packages/numpy/_core/tests/data/*.csv"),
    ("zone-tables", "csv", "/usr/share/zoneinfo/*.tab"),
    ("dpkg-log", "logs", "/var/log/dpkg.log"),
    ("apt-history", "logs", "/var/log/apt/history.log"),
    ("apt-term", "logs", "/var/log/apt/term.log"),
    ("licences", "licence", "/usr/share/common-licenses/*"),
    ("changelogs", "changelog", "/usr/share/doc/*/changelog.gz"),
    ("debian-changelogs", "changelog", "/usr/share/doc/*/changelog.Debian.gz"),
    ("node-api", "markdown", "/usr/share/doc/nodejs/api/*.md"),
    ("npm-manual", "markdown", "/usr/lib/node_modules/npm/docs/content/**/*.md"),
    ("cmake-manual", "restructured", "/usr/share/cmake-3.25/Help/command/*.rst"),
    ("rust-book", "prose", f"{_RUST}/book/*.html"),
    ("rust-reference", "prose", f"{_RUST}/reference/*.html"),
    ("cargo-book", "prose", f"{_RUST}/cargo/**/*.html"),
    ("rust-examples-chinese", "chinese", f"{_RUST}/rust-by-example/zh/**/*.html"),
    ("rust-pages", "html", f"{_RUST}/std/io/*.html"),
    ("own-manual", "markdown", f"{ROOT}/docs/**/*.md"),
    ("manual", "manual", "/usr/share/man/man1/*.1.gz"),
    ("manual-formats", "manual", "/usr/share/man/man5/*.5.gz"),
    *((f"manual-{code}", _LANGUAGES[code], f"/usr/share/man/{code}/man*/*.gz") for code in _MANUALS),
    ("python-descriptions", "readme", "/**/site-packages/*.dist-info/METADATA"),
)  # fmt: skip
# What people ask about a text, in a chat.
_REQUESTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("summarize", "Summarize this in two sentences.\n\n{}", ("rust-book", "node-api", "npm-manual", "own-manual")),
    ("translate", "Translate this into English:\n{}", ("manual-de", "manual-fr", "rust-examples-chinese", "manual-es")),
    ("explain-code", "What does this code do?\n\n{}", ("python-asyncio", "npm-code", "linux-headers", "queue-lua")),
    ("review-code", "Is there a mistake in this code? Be short.\n\n{}", ("python-email", "dpkg-perl", "llvm-headers")),
    ("explain-log", "What happened here?\n\n{}", ("apt-term", "dpkg-log", "apt-history")),
    ("keywords", "List five keywords of this text:\n{}", ("manual", "licences", "cargo-book", "rust-reference")),
    ("to-json", "Write the facts of this text as JSON:\n{}", ("python-descriptions", "debian-changelogs")),
    ("question", "Write a question that this text answers.\n\n{}", ("cmake-manual", "rust-book", "manual-formats")),
)  # fmt: skip
_SUBJECTS = ("a mountain village", "how to learn chess", "my landlord who does not answer", "a job interview tomorrow",
             "bread without yeast", "the water cycle", "a birthday for a five-year-old", "why the sky is blue",
             "running ten kilometres", "a second-hand bicycle", "the French Revolution", "house plants in the dark",
             "an old radio", "saving money as a student", "photosynthesis", "a cover letter for a baker",
             "the rules of tennis", "packing for Iceland", "a poem about rain", "interest rates")  # fmt: skip
_WISHES = {"chat-explain": "Explain to a child: {}.", "chat-list": "Give me three tips about {}.",
           "chat-german": "Schreibe mir bitte drei Sätze über: {}.",
           "chat-story": "Tell me a very short story about {}."}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--each", type=int, default=14)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    gatherer = Gatherer(options.each, options.seed)
    lines = [line for part in (gatherer.files, gatherer.catalogues, gatherer.requests, gatherer.exams, gatherer.tasks,
                               gatherer.packaged, gatherer.chats) for line in part()]  # fmt: skip
    options.out.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    sources, kinds = ({line[name] for line in lines} for name in ("source", "kind"))
    sys.stderr.write(f"{len(lines)} prompts, {len(sources)} sources, {len(kinds)} kinds\n")


class Gatherer:
    """Draws prompts; what it drew of files is kept for the requests about them."""

    def __init__(self, each: int, seed: int) -> None:
        self._each, self._random = each, random.Random(seed)  # noqa: S311  (a draw)
        self._excerpts: dict[str, list[str]] = {}

    def files(self) -> Iterator[Line]:
        for source, kind, pattern in _FILES:
            paths = _found(pattern)
            self._random.shuffle(paths)
            excerpts: list[str] = []
            for path in (paths * self._each)[: 6 * self._each]:
                text = self._excerpt(_text_of(path))
                is_translated = kind not in _OTHER_SCRIPTS or sum(char > "\u02ff" for char in text) > len(text) / 5
                if len(excerpts) < 2 * self._each and text and is_translated:
                    excerpts.append(text)
            if len(excerpts) < 4:
                sys.stderr.write(f"left out: {source}: {len(paths)} files at {pattern}\n")
                continue
            self._excerpts[source] = excerpts[self._each :] or excerpts
            yield from (_line(text, source, kind, chat=False) for text in excerpts[: self._each])

    def catalogues(self) -> Iterator[Line]:
        for code, kind in _LANGUAGES.items():
            for name in _CATALOGUES[:: 1 if kind in ("german", "french", "chinese", "russian") else 3]:
                path = Path(f"/usr/share/locale/{code}/LC_MESSAGES/{name}.mo")
                if not path.exists():
                    continue
                with path.open("rb") as file:
                    messages = [text for text in gettext.GNUTranslations(file)._catalog.values() if len(text) > 40]  # type: ignore[attr-defined]
                for _ in range(max(4, self._each // 2)):
                    text = "\n".join(self._random.sample(messages, min(5, len(messages))))
                    yield _line(text[:LONGEST], f"messages-{name}-{code}", kind, chat=False)

    def requests(self) -> Iterator[Line]:
        for kind, form, sources in _REQUESTS:
            for source in sources:
                for text in self._excerpts.get(source, [])[: max(4, self._each // 2)]:
                    yield _line(form.format(text), f"{kind}-{source}", kind, chat=True)

    def exams(self) -> Iterator[Line]:
        if not LABELS.exists():
            sys.stderr.write(f"left out: exams: no {LABELS}\n")
            return
        with gzip.open(LABELS, "rt", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        by_task: dict[str, list[str]] = {}
        for row in rows:
            by_task.setdefault(row["task"], []).append(row["prompt"])
        for number, (task, prompts) in enumerate(sorted(by_task.items())):
            count = 2 * self._each if task == "gsm8k" else max(4, self._each // 3)
            kind = "mathematics" if task == "gsm8k" else "exam"
            for text in self._random.sample(prompts, min(count, len(prompts))):
                yield _line(text[:LONGEST], task, kind, chat=bool(number % 2))

    def tasks(self) -> Iterator[Line]:
        """Prompts with a right answer: programs, sums, facts of a description, values as JSON."""
        for problem in spread(load_problems(), 2 * self._each):
            code = {"prompt": problem.prompt, "test": problem.test, "entry_point": problem.entry_point}
            yield _line(
                problem.question, "human-eval", "program", chat=False, check={"code": code | {"max_tokens": 128}}
            )
        for _ in range(2 * self._each):
            first, second = self._random.randint(2, 99), self._random.randint(2, 99)
            check = {"contains": str(first + second)}
            yield _line(f"What is {first} plus {second}?", "sums", "arithmetic", chat=True, check=check)
        for text in self._excerpts.get("python-descriptions", []):
            if found := re.search(r"^(Name|Version|License|Author): (\S{3,30})$", text, re.MULTILINE):
                prompt = f"{text[:700]}\n\nWhich {found[1].lower()} is named above? Answer with it alone."
                yield _line(prompt, "descriptions", "extraction", chat=True, check={"contains": found[2]})
        for subject in _SUBJECTS[: self._each]:
            prompt = f'Answer with a JSON object alone, with the fields "title" and "words": {subject}.'
            fenced = {"json": {"type": "object", "required": ["title"]}, "extract": r"(?s)(\{.*\})"}
            yield _line(prompt, "json-objects", "structured", chat=True, check=fenced)

    def packaged(self) -> Iterator[Line]:
        for name, texts in (("calibration", packaged_calibration()), ("heldout", packaged_heldout())):
            for kind, text in texts:
                yield _line(text[:LONGEST], f"packaged-{name}-{kind}", kind, chat=kind == "chat")

    def chats(self) -> Iterator[Line]:
        for source, form in _WISHES.items():
            for subject in self._random.sample(_SUBJECTS, min(self._each, len(_SUBJECTS))):
                yield _line(form.format(subject), source, "wish", chat=True)

    def _excerpt(self, text: str) -> str:
        """Return some lines from anywhere in a text; '' where it is too short, or no text."""
        if len(text) < SHORTEST or "\0" in text:
            return ""
        size = self._random.randint(SHORTEST, LONGEST)
        begin = text.find("\n", self._random.randint(0, max(0, len(text) - size))) + 1
        excerpt = text[begin : begin + size].strip()
        return excerpt if len(excerpt) >= SHORTEST // 2 else ""


def _line(text: str, source: str, kind: str, *, chat: bool, check: Line | None = None) -> Line:
    line: Line = {"prompt": text, "source": source, "kind": kind, "chat": chat}
    return line if check is None else line | {"check": check}


def _found(pattern: str) -> list[str]:
    if pattern.startswith("/**/site-packages/"):
        pattern = f"{Path(sys.prefix)}/lib/python3*/site-packages/{pattern.removeprefix('/**/site-packages/')}"
    return sorted(path for path in glob.glob(pattern, recursive=True) if Path(path).is_file())


def _text_of(path: str) -> str:
    content = Path(path).read_bytes()[:2_000_000]
    if path.endswith(".gz"):
        content = gzip.decompress(Path(path).read_bytes())
    text = content.decode("utf-8", "ignore")
    readers: dict[str, Callable[[str], str]] = {"html": _html_text}
    if "/man/" in path:
        return _manual_text(text)
    return readers.get(Path(path).suffix[1:], str)(text) if "std/io" not in path else text


def _manual_text(text: str) -> str:
    text = re.sub(r"^[.'].*?(\"[^\"\n]{20,}\".*)?$", r"\1", text, flags=re.MULTILINE)
    return re.sub(r"\n{2,}", "\n", re.sub(r"\\f.|\\-|\\&|\\\(..|\\", "", text))


def _html_text(text: str) -> str:
    main = re.search(r"(?s)<main>(.*)</main>", text)
    paragraphs = re.findall(r"(?s)<(?:p|li)>(.*?)</(?:p|li)>", main[1] if main else text)
    plain = "\n".join(re.sub(r"(?s)<.*?>", "", paragraph) for paragraph in paragraphs)
    return re.sub(r"&[a-z]+;|&#\d+;", "'", plain)


if __name__ == "__main__":
    main()
