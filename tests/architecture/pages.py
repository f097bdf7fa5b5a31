"""The pages of the project, and the links in them. `python -m tests.architecture.pages` makes links of file names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
OWN = (
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "benchmarks/",
    "compose/",
    "docs/",
    "examples/",
    "monitoring/",
    "requirements/",
)
CODE_BLOCK = r"^ *```.*?^ *```"
LINK = r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)\)"
FILE = (
    r"(?<![\w/~.\-])(?:bitladder|dispatcher|workers|calibration|compose|docs|tests|benchmarks|examples|monitoring|requirements)"
    r"/[\w/.-]*\w\.(?:py|lua|md|toml|json|txt|acl|yaml|conf|cfg|sh)(?![\w/])"
)
# What a page is read as, in this order: only the last two kinds are names that should be links.
TOKEN = re.compile(
    rf"(?P<block>{CODE_BLOCK})|(?P<link>{LINK})|(?P<code>`[^`]*`)"
    rf"|(?<![\w/])(?:docs/)?decisions/(?P<decision>\d{{4}})(?![\w-])|(?P<file>{FILE})(?:, (?P<heading>[A-Z][\w' -]*))?",
    re.DOTALL | re.MULTILINE,
)


def listed() -> list[str]:
    """Return every file of the project that git knows or may know."""
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    paths = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [path for path in paths if (ROOT / path).is_file()]


def pages() -> list[str]:
    return [path for path in listed() if path.endswith(".md") and path.startswith(OWN)]


def linked(page: str, text: str) -> str:
    """Return the text of a page with a link for each file and decision that it names."""

    def relative(path: str) -> str:
        return os.path.relpath(ROOT / path, (ROOT / page).parent)

    def link(token: re.Match[str]) -> str:
        if number := token["decision"]:
            return f"[decision {number}]({relative(str(decision(number)))})"
        path = token["file"] or (token["code"] or "").strip("`")
        if not re.fullmatch(FILE, path) or not (ROOT / path).is_file():
            return token[0]
        if token["code"]:
            return f"[`{path}`]({relative(path)})"
        shown = Path(path).name if page.startswith("docs/") and path.startswith("docs/") else path
        heading, anchor, rest = part(path, token["heading"] or "")
        return f"[{shown}{heading}]({relative(path)}{anchor}){rest}"

    return TOKEN.sub(link, text)


def decision(number: str) -> Path:
    """Return the file of a decision.

    Raises:
        FileNotFoundError: there is none with this number.

    """
    for path in (ROOT / "docs" / "decisions").glob(f"{number}-*.md"):
        return path.relative_to(ROOT)
    raise FileNotFoundError(f"there is no decision {number}")


def part(path: str, words: str) -> tuple[str, str, str]:
    """Split what follows "<page>, " into the heading that it begins with, that heading's anchor, and the rest."""
    names = anchors(ROOT / path) if path.endswith(".md") else set()
    for end in range(len(words), 0, -1):
        if anchor_of(words[:end]) in names and not words[:end].endswith(" "):
            return f", {words[:end]}", f"#{anchor_of(words[:end])}", words[end:]
    return "", "", f", {words}" if words else ""


def anchor_of(heading: str) -> str:
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    text = without_code_blocks(page.read_text(encoding="utf-8"))
    return {anchor_of(heading) for heading in re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)}


def without_code_blocks(text: str) -> str:
    """Return a page whose blocks of code are empty lines, so that places keep their line."""
    return re.sub(CODE_BLOCK, lambda block: "\n" * block[0].count("\n"), text, flags=re.DOTALL | re.MULTILINE)


def links(text: str) -> Iterator[tuple[int, str]]:
    """Yield each link's line and target."""
    text = without_code_blocks(text)
    for match in re.finditer(LINK, text):
        yield text.count("\n", 0, match.start()) + 1, match[1]


if __name__ == "__main__":
    for name in pages():
        before = (ROOT / name).read_text(encoding="utf-8")
        if (after := linked(name, before)) != before:
            (ROOT / name).write_text(after, encoding="utf-8")
            sys.stdout.write(f"links made in {name}\n")
