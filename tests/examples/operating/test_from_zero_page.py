"""docs/operating/guides/from-zero-to-production.md: its commands, on a Redis with its users, with API keys required."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, OwnValkey, Stack, wait_until
from tests.page_examples import blocks

PAGE = "docs/operating/guides/from-zero-to-production.md"


class Machine:
    """A folder in which the page's commands run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "compose").symlink_to(ROOT / "compose")
        self.environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(folder)}

    def run(self, block: int) -> str:
        command = ["bash", "-euc", blocks(PAGE, "bash")[block]]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, check=False, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def key(self, name: str) -> str:
        return (self.folder / f"{name}.key").read_text(encoding="utf-8").strip()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_the_path_leads_to_a_ladder_that_serves_behind_keys_and_users(machine: Machine, tmp_path: Path) -> None:
    machine.run(0)
    valkey = OwnValkey(tmp_path / "valkey", "--aclfile", str(tmp_path / "users.acl"), "--maxmemory", "1gb")
    valkey.start()
    settings = (ROOT / "bitladder.toml").read_text(encoding="utf-8")
    (tmp_path / "bitladder.toml").write_text(f'[auth]\nrequired = true\nkeys_file = "keys.toml"\n{settings}', "utf-8")
    stacks = {
        role: Stack(
            valkey.url,
            BITLADDER_CONFIG=str(tmp_path / "bitladder.toml"),
            BITLADDER_REDIS__USERNAME=role,
            BITLADDER_REDIS__PASSWORD_FILE=str(tmp_path / f"{role}.password"),
            BITLADDER_FILES__STORE=str(tmp_path / "files"),
        )
        for role in ("intake", "worker")
    }
    for stack in stacks.values():
        del stack.environment["BITLADDER_AUTH__KEYS_FILE"]
    try:
        machine.environment |= {
            name: value for name, value in stacks["intake"].environment.items() if name.startswith("BITLADDER_")
        }
        machine.run(1)
        machine.run(2)
        intake = stacks["intake"]
        intake.intake()
        intake.http.headers["Authorization"] = f"Bearer {machine.key('operator')}"
        for tier in ("int4", "int8", "fp8"):
            stacks["worker"].start("worker", "--tier", tier)
        wait_until(lambda: all(intake.live(tier) for tier in ("int4", "int8", "fp8")), "all tiers have a worker")

        del machine.environment["BITLADDER_CONFIG"]
        machine.environment["BITLADDER_URL"] = intake.url
        said = machine.run(3)
    finally:
        for stack in stacks.values():
            stack.kill()
        valkey.kill()

    assert "What a day" in said
    assert "entropy 2.65 <= 4.5" in said
