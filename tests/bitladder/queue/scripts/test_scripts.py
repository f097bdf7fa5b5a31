"""bitladder/queue/scripts/: each script has the parts that it uses, and no others; its head says what it does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from lupa import lua51

from bitladder.queue.run_script import NAMES, needs, source
from tests.conftest import ROOT

SCRIPTS = ROOT / "bitladder/queue/scripts"
PART_FOLDERS = ("parts", "claiming")
FILES = sorted(SCRIPTS.rglob("*.lua"))
PARTS = {path.stem: path.read_text(encoding="utf-8") for path in FILES if path.parent.name in PART_FOLDERS}
MAX_LINES, MAX_ENTRIES = 150, 20
# What Redis gives a script.
GLOBALS = {"redis", "cjson", "struct", "KEYS", "ARGV"}


def code_of(text: str) -> str:
    """Return a script without its comments and texts."""
    return re.sub(r"'(?:\\.|[^'\\])*'", "''", re.sub(r"--[^\n]*", "", text))


def defined_in(text: str) -> set[str]:
    """Return the names that a part defines for those behind it."""
    names = re.findall(r"^local (?:function )?([\w, ]+)", code_of(text), re.MULTILINE)
    return {name.strip() for group in names for name in group.split(",")}


def locals_of(text: str) -> set[str]:
    """Return all names that a script gives to values of its own, parameters included."""
    code = code_of(text)
    groups = re.findall(r"local (?:function )?([\w, ]+)", code) + re.findall(r"function ?\w*\(([\w, .]*)\)", code)
    return {name.strip() for names in groups for name in names.split(",")}


def used_in(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w.:])[A-Za-z_]\w*", code_of(text)))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_head_lists_the_parts_that_the_script_uses_and_no_others(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    own = locals_of(text)
    used = {name for name, part in PARTS.items() if (defined_in(part) - own) & used_in(text) and part != text}

    assert used == set(needs(text))


@pytest.mark.parametrize("name", NAMES)
def test_a_script_reads_no_global_that_redis_does_not_give(name: str) -> None:
    runtime = lua51.LuaRuntime(encoding=None)
    known = GLOBALS | {key.decode() for key in runtime.globals()}
    dump = runtime.eval("function(text) return string.dump(assert(loadstring(text))) end")

    assert set(Bytecode(dump(source(name).removeprefix("#!lua flags=allow-oom\n").encode())).globals()) - known == set()


class Bytecode:
    """Compiled Lua 5.1, as far as it names globals (lundump.c, lopcodes.h)."""

    GLOBAL_OPCODES = (5, 7)  # read, write

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 12  # behind the header

    def globals(self) -> Iterator[str]:
        self.text()
        self.at += 12  # lines and four counts
        code = [self.int() for _ in range(self.int())]
        constants = [self.constant() for _ in range(self.int())]
        yield from (constants[word >> 14] for word in code if word & 63 in self.GLOBAL_OPCODES)
        for _ in range(self.int()):
            yield from self.globals()
        self.at += 4 * self.int()  # lines
        for _ in range(self.int()):
            self.text()
            self.at += 8
        for _ in range(self.int()):
            self.text()

    def int(self) -> int:
        self.at += 4
        return int.from_bytes(self.data[self.at - 4 : self.at], "little")

    def text(self) -> str:
        size = int.from_bytes(self.data[self.at : self.at + 8], "little")
        self.at += 8 + size
        return self.data[self.at - size : self.at - 1].decode(errors="replace")

    def constant(self) -> str:
        kind = self.data[self.at]
        self.at += 1
        if kind == 4:
            return self.text()
        self.at += {0: 0, 1: 1, 3: 8}[kind]
        return ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_script_stays_small_and_says_what_it_touches(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    head = text.split("\n\n")[0]

    assert len(text.splitlines()) <= MAX_LINES
    assert re.search(r"^-- (KEYS|Touches|Touches also, by name:) ?", head, re.MULTILINE)
    assert path.parent.name in PART_FOLDERS or "\n-- Returns " in head


@pytest.mark.parametrize(
    "folder", [SCRIPTS, SCRIPTS / "parts", SCRIPTS / "claiming", SCRIPTS / "reading"], ids=lambda path: path.name
)
def test_a_folder_of_scripts_stays_small(folder: Path) -> None:
    assert len(list(folder.iterdir())) <= MAX_ENTRIES
