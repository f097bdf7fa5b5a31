"""The pages lead where they say: every link and anchor is there, every file that is named is a link."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from bitladder.cli.commands import app
from bitladder.cli.demo.demo_requests import ServedBatch
from bitladder.cli.demo.demo_tables import burst_table, request_table, tier_table
from bitladder.settings.load import load_settings
from calibration.commands.app import STEPS
from tests.architecture.pages import ROOT, anchors, linked, links, listed, pages

FILES, PAGES = listed(), pages()


def broken(page: Path) -> Iterator[str]:
    for line, target in links(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        place = f"{page.name}:{line}: {target}"
        if not file.exists():
            same = [other for other in FILES if Path(other).name == file.name]
            yield f"{place} is not there" + (f"; it may be {', '.join(same)}" if same else "")
        elif anchor and anchor not in anchors(file):
            yield f"{place} has no such heading"


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_somewhere(page: str) -> None:
    assert list(broken(ROOT / page)) == []


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_is_a_link(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")

    assert linked(page, text) == text, "make format makes the links"


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A heading\n[a](gone.md) [b](#a-heading)\n[c\nc](#other)\n", encoding="utf-8")

    assert list(broken(page)) == ["page.md:2: gone.md is not there", "page.md:3: #other has no such heading"]


@pytest.mark.parametrize(
    ("named", "link"),
    [
        ("see docs/rq.md.", "see [rq.md](rq.md)."),
        ("(workers/pump.py)", "([workers/pump.py](../workers/pump.py))"),
        ("`workers/pump.py`", "[`workers/pump.py`](../workers/pump.py)"),
        ("docs/glossary.md, Queue and jobs, too", "[glossary.md, Queue and jobs](glossary.md#queue-and-jobs), too"),
        ("decisions/0001", "[decision 0001](decisions/0001-separate-lists-for-ceilings.md)"),
        ("`python workers/pump.py`", "`python workers/pump.py`"),
        ("workers/gone.py", "workers/gone.py"),
        ("```\nworkers/pump.py\n```", "```\nworkers/pump.py\n```"),
    ],
)
def test_a_name_becomes_a_link(named: str, link: str) -> None:
    assert linked("docs/page.md", named) == link
    assert linked("docs/page.md", link) == link


def test_every_page_is_one_step_from_the_readme() -> None:
    targets = {target for _, target in links((ROOT / "README.md").read_text(encoding="utf-8"))}
    own = {path for path in FILES if re.fullmatch(r"(docs|compose|examples|benchmarks|requirements)/[^/]+\.md", path)}

    assert own - targets == set()
    assert any(target.endswith(".lua") for target in targets)  # the rule that this is all about


def test_every_decision_that_is_cited_exists_and_no_two_have_one_number() -> None:
    files = sorted(path.name[:4] for path in (ROOT / "docs" / "decisions").glob("*.md"))
    numbers = set(files)
    read = [path for path in FILES if path.endswith((".py", ".lua", ".md", ".toml"))]
    cited = {
        (path, number)
        for path in read
        for number in re.findall(r"\bdecisions?/? ?(\d{4})\b", (ROOT / path).read_text(encoding="utf-8"))
    }

    assert len(files) == len(numbers)
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
    group: Any = typer.main.get_command(app)
    inner = {name: set(getattr(group.get_command(None, name), "commands", ())) for name in group.list_commands(None)}
    return inner | {"calibrate": set(STEPS)}


def test_the_readme_shows_the_columns_that_the_demo_prints() -> None:
    model = load_settings(str(ROOT / "bitladder.toml")).settings.models["smollm2"]
    empty = ServedBatch(served=(), wall_s=1.0)
    tables = (request_table(()), tier_table(empty, model), burst_table(empty, empty, model))
    page = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())

    assert [header for table in tables if (header := " ".join(str(c.header) for c in table.columns)) not in page] == []
