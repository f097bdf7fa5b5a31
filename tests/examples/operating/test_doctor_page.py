"""docs/operating/doctor.md: its commands run as they stand there, and its table names every check that there is."""

from __future__ import annotations

import re
from collections.abc import Callable

from bitladder.cli.ops.doctor.doctor_command import GROUPS
from tests.conftest import ROOT, Stack
from tests.page_examples import blocks
from tests.warm_start import BITLADDER

PAGE = "docs/operating/doctor.md"


def test_the_table_names_every_check() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "bitladder/cli/ops/doctor").glob("*.py")]
    made = re.compile(r'\b(?:ok|warn|fail|skipped|judged|_room)\(\s*"([a-z]+\.[a-z_0-9]+)"')
    named = {name for source in sources for name in made.findall(source)}

    assert {name.partition(".")[0] for name in named} == {*GROUPS}
    assert set(re.findall(r"^\| `(\w+\.\w+)` \|", (ROOT / PAGE).read_text(encoding="utf-8"), re.MULTILINE)) == named


def test_the_commands_of_the_page_run(make_stack: Callable[..., Stack]) -> None:
    environment = make_stack().environment

    (block,) = blocks(PAGE, "bash")
    done = [BITLADDER.run("bitladder.cli.main", *line.split()[1:], env=environment) for line in block.splitlines()]

    assert [one.returncode for one in done] == [0, 0]
    assert "keys.required" in done[0].stdout
    assert '"check": "gpu.seen"' in done[1].stdout
