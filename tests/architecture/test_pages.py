"""The pages lead where they say: every link and anchor is there, every file that is named is a link."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from bitladder.cli.commands import app
from calibration.commands.app import STEPS
from tests.conftest import ROOT

OWN = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/", "compose/", "docs/", "examples/", "requirements/")
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)\)")
# A file of ours that is named as plain text or code.
NAMED = re.compile(
    r"(?<![\w/~.\-\[(])((?:bitladder|dispatcher|workers|calibration|compose|docs|tests|benchmarks|examples|requirements)"
    r"/[\w/.-]*\w\.(?:py|lua|md|toml|json|txt|acl|yaml|conf|cfg|sh))(?![\w/])"
)


def listed() -> list[str]:
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


FILES = [path for path in listed() if (ROOT / path).is_file()]
PAGES = [path for path in FILES if path.endswith(".md") and path.startswith(OWN)]


def prose(page: str) -> str:
    """Return a page whose blocks of code are empty lines, so that places keep their line."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.sub(r"^ *```.*?^ *```", lambda block: "\n" * block[0].count("\n"), text, flags=re.DOTALL | re.MULTILINE)


def line_of(text: str, place: int) -> int:
    return text.count("\n", 0, place) + 1


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    names: set[str] = set()
    for heading in re.findall(r"^#+ +(.+?) *$", prose(str(page.relative_to(ROOT))), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        names.add(name if name not in names else f"{name}-1")
    return names


def broken(page: str) -> Iterator[str]:
    text = prose(page)
    for match in LINK.finditer(text):
        target = match[1]
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        place = f"{page}:{line_of(text, match.start())}: {target}"
        if not file.exists():
            same = [other for other in FILES if Path(other).name == file.name]
            yield f"{place} is not there" + (f"; it may be {', '.join(same)}" if same else "")
        elif anchor and anchor not in anchors(file):
            yield f"{place} has no such heading"


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_somewhere(page: str) -> None:
    assert list(broken(page)) == []


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_is_a_link(page: str) -> None:
    text = LINK.sub(" ", prose(page))
    text = re.sub(r"`([^`]*)`", lambda code: " " if re.search(r"\s", code[1]) else code[0], text)  # not in commands

    assert NAMED.findall(text) == []


def test_a_broken_link_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.architecture.test_pages.ROOT", tmp_path)
    (tmp_path / "page.md").write_text("# A heading\n[a](gone.md) [b](#a-heading)\n[c\nc](#other)\n", encoding="utf-8")

    assert list(broken("page.md")) == ["page.md:2: gone.md is not there", "page.md:3: #other has no such heading"]


def test_every_page_is_one_step_from_the_readme() -> None:
    linked = set(LINK.findall(prose("README.md")))
    pages = {path for path in FILES if re.fullmatch(r"(docs|compose|examples|benchmarks|requirements)/[^/]+\.md", path)}

    assert pages - linked == set()
    assert any(target.endswith(".lua") for target in linked)  # the rule that this is all about


def test_every_decision_that_is_cited_exists() -> None:
    numbers = {path.name[:4] for path in (ROOT / "docs" / "decisions").glob("*.md")}
    read = [path for path in FILES if path.endswith((".py", ".lua", ".md", ".toml"))]
    cited = {
        (path, number)
        for path in read
        for number in re.findall(r"\bdecisions?/? ?(\d{4})\b", (ROOT / path).read_text(encoding="utf-8"))
    }

    assert len(cited) > 10
    assert {(path, number) for path, number in cited if number not in numbers} == set()


def test_every_command_that_a_page_names_exists() -> None:
    known = subcommands()
    named = {
        (page, *words)
        for page in PAGES
        for words in re.findall(
            r"(?:`|bin/)bitladder ([a-z][a-z-]*)(?: ([a-z][a-z-]+))?", (ROOT / page).read_text(encoding="utf-8")
        )
    }

    assert len(named) > 20
    assert {name for name in named if name[1] not in known} == set()
    assert {name for name in named if known[name[1]] and name[2] and name[2] not in known[name[1]]} == set()


def subcommands() -> dict[str, set[str]]:
    """Return the subcommands of `bitladder`, and theirs."""
    group = typer.main.get_command(app)
    inner = {name: set(getattr(command, "commands", ())) for name, command in getattr(group, "commands", {}).items()}
    return inner | {"calibrate": set(STEPS)}


def test_the_demo_prints_the_columns_that_the_readme_shows() -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    source = (ROOT / "bitladder" / "cli" / "demo.py").read_text(encoding="utf-8")
    columns = [name.strip() for row in re.findall(r"^┃(.+)┃$", page, re.MULTILINE) for name in row.split("┃")]

    assert len(columns) > 15
    assert [name for name in columns if f'"{name}"' not in source] == []
