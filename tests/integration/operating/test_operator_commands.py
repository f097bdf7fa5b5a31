"""What operators look at and order: the same from an intake, with a key alone, as from Redis itself."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from bitladder.client import Client
from bitladder.settings.access import key_hash, new_key
from tests.conftest import Stack, wait_until
from tests.integration.engines.test_dead_letters import BODY
from tests.warm_start import BITLADDER

OPS, USER = new_key(), new_key()
COMMAND = [sys.executable, "-m", "bitladder.cli.main"]


@pytest.fixture
def stack(make_stack: Callable[..., Stack]) -> Stack:
    """Return an intake with keys, a worker of the highest tier alone, and a dead letter."""
    keys = {
        "ops": {"hash": key_hash(OPS.encode()), "tenant": "ops", "scopes": ["submit", "read", "ops"]},
        "user": {"hash": key_hash(USER.encode()), "tenant": "user", "scopes": ["submit", "read"]},
    }
    tables = ", ".join(f"{name} = {{{entries(key)}}}" for name, key in keys.items())
    stack = make_stack(BITLADDER_AUTH__KEYS=f"{{{tables}}}")
    stack.http.headers["Authorization"] = f"Bearer {OPS}"
    stack.intake()
    stack.worker("fp8")
    with Client(stack.url, api_key=USER) as client:
        job_id = client.submit(BODY | {"prompt": "echo:fault of ours"})["id"]
        wait_until(lambda: client.result(job_id)["status"] == "failed", "it is a dead letter")
    return stack


def entries(key: Mapping[str, object]) -> str:
    return ", ".join(f"{name} = {json.dumps(value)}" for name, value in key.items())


def by_redis(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    return BITLADDER.run("bitladder.cli.main", *arguments, env=stack.environment)


def by_intake(stack: Stack, folder: Path, *arguments: str, key: str = OPS) -> subprocess.CompletedProcess[str]:
    """Run a command with a URL and a key, and nothing else: no configuration, no Redis."""
    environment = {name: value for name, value in stack.environment.items() if not name.startswith("BITLADDER_")}
    environment |= {"BITLADDER_URL": stack.url, "BITLADDER_API_KEY": key}
    return subprocess.run(
        [*COMMAND, *arguments], env=environment, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


def test_every_command_of_an_operator_says_the_same_from_both_sides(stack: Stack, tmp_path: Path) -> None:
    (entry,) = json.loads(by_redis(stack, "dead-letters", "list", "--json").stdout)
    for command in (
        ("queues", "--json"),
        ("dead-letters", "list", "--json", "--code", "engine_fault"),
        ("dead-letters", "list", "--queue", "other", "--limit", "0"),
        ("dead-letters", "show", entry["id"]),
        ("dead-letters", "show", "nobody"),
        ("dead-letters", "release", "--all", "--dry-run"),
        ("dead-letters", "drop", "nobody", "--json"),
        ("dead-letters", "drop", "--code", "engine_fault"),
        ("jobs", "--state", "running", "--tenant", "user"),
        ("jobs", "--lane", "fast"),
        ("jobs", "show", "nobody"),
        ("tenants", "--json"),
    ):
        ours, theirs = by_redis(stack, *command), by_intake(stack, tmp_path, *command)
        assert (ours.returncode, ours.stdout, ours.stderr) == (theirs.returncode, theirs.stdout, theirs.stderr), command
        assert ours.stdout or ours.returncode in (2, 3), command
    drop = ["dead-letters", "drop", "--all", "--yes"]
    for forbidden, scope in (
        (["queues"], "read"),
        (["workers"], "read"),
        (["dead-letters", "list"], "read"),
        (drop, "write"),
    ):
        refused = by_intake(stack, tmp_path, *forbidden, key=USER)
        assert (refused.returncode, refused.stdout) == (4, "")
        assert f"scope 'ops:{scope}'" in refused.stderr
    assert by_intake(stack, tmp_path, "queues", key="wrong").returncode == 4

    dropped = by_intake(stack, tmp_path, "dead-letters", "drop", "--code", "engine_fault", "--yes")

    assert (dropped.returncode, dropped.stdout) == (0, "1 of 1 dropped\n")
    assert json.loads(by_redis(stack, "dead-letters", "list", "--json").stdout) == []


def test_what_is_shown_is_whole_and_says_in_words_what_is_wrong(stack: Stack) -> None:
    (entry,) = json.loads(by_redis(stack, "dead-letters", "list", "--json").stdout)

    shown = json.loads(by_redis(stack, "dead-letters", "show", entry["id"]).stdout)
    header, row = by_redis(stack, "dead-letters", "list").stdout.splitlines()
    usual, checked = by_redis(stack, "queues"), by_redis(stack, "queues", "--check")
    narrow = on_a_terminal(stack, "dead-letters", "list")

    assert "request" not in entry
    assert shown["request"]["body"] == BODY | {"prompt": "echo:fault of ours"}
    assert (shown["request"]["tenant"], shown["request"]["endpoint"]) == ("user", "/v1/completions")
    assert [loss["code"] for loss in shown["history"]] == ["engine_fault"] * 2

    error = entry["error"]["message"]
    assert header.split("\t") == ["job", "code", "queue", "attempts", "age s", "error"]
    assert row.split("\t")[:3] == [entry["id"], "engine_fault", "smollm2:int4:normal"]
    assert row.split("\t")[-1] == error
    assert f"{entry['id']}  engine_fault  smollm2:int4:normal" in narrow
    assert error in narrow

    rows = [line.split("\t") for line in usual.stdout.splitlines()]
    words = "".join(
        f"smollm2 {tier}: no live worker; fp8 serves its jobs, except those with a lower max_tier\n"
        for tier in ("int4", "int8")
    )
    assert rows[0] == ["model", "tier", "lane", "depth", "oldest s", "in flight", "workers", "paused"]
    assert rows[1] == ["smollm2", "int4", "urgent", "0", "", "0", "0", ""]
    assert len(rows) == 10
    assert (usual.returncode, usual.stderr) == (0, words)
    assert (checked.returncode, checked.stderr) == (1, words)


@pytest.mark.parametrize(("answer", "status", "left"), [("n", 1, 1), ("y", 0, 0)])
def test_whoever_drops_everything_is_asked_first(stack: Stack, answer: str, status: int, left: int) -> None:
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n".encode())

    done = subprocess.run(
        [*COMMAND, "dead-letters", "drop", "--all"],
        env=stack.environment,
        stdin=theirs,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(ours)
    os.close(theirs)

    assert "drop 1 jobs, 1 engine_fault for good? [y/N]" in done.stderr
    assert done.returncode == status
    assert stack.http.get("/v1/dead-letters").json()["total"] == left


def on_a_terminal(stack: Stack, *arguments: str) -> str:
    """Return what a terminal of 80 columns is shown."""
    ours, theirs = pty.openpty()
    subprocess.run([*COMMAND, *arguments], env=stack.environment | {"COLUMNS": "80"}, stdout=theirs, check=True)
    os.close(theirs)
    return read_all(ours)


def read_all(terminal: int) -> str:
    """Read what a terminal was shown; its end is an error of the system."""
    seen = b""
    try:
        while part := os.read(terminal, 65536):
            seen += part
    except OSError:
        os.close(terminal)
    return seen.decode()


def test_a_mistyped_id_is_said_and_no_success(stack: Stack, tmp_path: Path) -> None:
    dropped = by_redis(stack, "dead-letters", "drop", "nope")
    over_http = by_intake(stack, tmp_path, "dead-letters", "release", "nope")
    known = json.loads(by_redis(stack, "dead-letters", "list", "--json").stdout)[0]["id"]
    both = by_redis(stack, "dead-letters", "drop", known, "nope")

    assert [done.returncode for done in (dropped, over_http, both)] == [3, 3, 3]
    assert "no dead letter is nope" in dropped.stderr
    assert "no dead letter is nope" in over_http.stderr
    assert "1 of 1 dropped" in both.stdout
    assert "no dead letter is nope\n" in both.stderr


def test_whoever_submits_hears_why_the_engine_refused(stack: Stack, tmp_path: Path) -> None:
    """The URL may be the one that OpenAI's clients have, with /v1."""
    stack.environment["BITLADDER_URL"] = f"{stack.url}/v1"

    refused = by_redis(stack, "submit", "Hello", "--max-tokens", "0", "--wait", "--min-tier", "fp8", "--api-key", USER)
    contradiction = by_redis(stack, "submit", "Hello", "--stream", "--json", "--api-key", USER)

    assert refused.returncode == 1, refused.stderr
    assert "max_tokens must be at least 1, got 0" in refused.stderr
    assert "; job 0" in refused.stderr
    assert contradiction.returncode == 2
    assert "--stream prints a completion or chat as text" in contradiction.stderr
