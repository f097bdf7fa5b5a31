"""Whatever keeps a command from its work is one line on stderr and a status, without a traceback and secrets."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.conftest import ROOT, Stack, free_port
from tests.integration.intake.test_security import keys_in_toml
from tests.warm_start import BITLADDER

KEYED = {"BITLADDER_AUTH__KEYS": keys_in_toml()}
# Name: command, environment, exit status, what the line says. {taken} is a port in use, {free} one that is not.
CASES: dict[str, tuple[str, dict[str, str], int, str]] = {
    "port in use": ("serve --port {taken}", {}, 2, "intake.port: 127.0.0.1:{taken} is in use by another process"),
    "another machine's address": ("serve --host 192.0.2.1", KEYED, 2, "intake.host: cannot listen on 192.0.2.1:"),
    "unknown host": (
        "serve --host nowhere.invalid",
        KEYED,
        2,
        "intake.host: there is no address for 'nowhere.invalid'",
    ),
    "no key": ("serve", {"BITLADDER_AUTH__REQUIRED": "true"}, 2, "auth.keys is empty"),
    "metrics port in use": (
        "worker --tier int4 --metrics-port {taken}",
        {},
        2,
        "worker.metrics_port: 127.0.0.1:{taken}",
    ),
    "no such tier": ("worker --tier int3", {}, 2, "tier must be one of int4, int8, fp8, got 'int3'"),
    "redis's port in use": (
        "redis",
        {"BITLADDER_REDIS__URL": "redis://127.0.0.1:{taken}/0"},
        2,
        "redis.url: cannot listen on 127.0.0.1:{taken}: Address already in use",
    ),
    "no folder": (
        "redis",
        {"BITLADDER_REDIS__URL": "redis://127.0.0.1:{free}/0", "BITLADDER_REDIS__DATA_DIR": "/proc/none"},
        2,
        "redis.data_dir must be a folder that can be made, got '/proc/none'",
    ),
    "no Sentinels": ("failover", {}, 2, "redis.sentinels must be set"),
    "no Redis": ("queues", {"BITLADDER_REDIS__URL": "redis://127.0.0.1:{free}/0"}, 5, "Redis does not answer"),
    "no configuration": ("queues --config /nowhere", {}, 2, "there is no configuration file '/nowhere'"),
    "no file": ("batch run /nowhere/in -o out", {}, 1, "bitladder: /nowhere/in: No such file or directory"),
    "no intake": ("submit x", {"BITLADDER_URL": "http://127.0.0.1:{free}"}, 5, "cannot reach the intake at http://"),
    "no URL": ("submit x --url nonsense", {}, 2, "the URL of an intake"),
    "a password in the URL": (
        "submit x",
        {"BITLADDER_URL": "http://me:SECRET@127.0.0.1:{free}/"},
        5,
        "cannot reach the intake at http://127.0.0.1:{free}/",
    ),
    "a key that is none": ("submit x", {"BITLADDER_API_KEY": "SECRETé"}, 2, "the API key must be printable ASCII"),
    "a key with a line break": (
        "submit x",
        {"BITLADDER_API_KEY": "SECRET\n1"},
        2,
        "the API key must be printable ASCII",
    ),
}


def _with(text: str, ports: dict[str, str]) -> str:
    """Return the text with its ports; other braces are TOML."""
    for name, port in ports.items():
        text = text.replace(f"{{{name}}}", port)
    return text


@pytest.mark.parametrize("name", CASES)
def test_a_command_that_cannot_do_its_work_says_so_in_one_line(make_stack: Callable[..., Stack], name: str) -> None:
    command, environment, status, expected = CASES[name]
    with socket.create_server(("127.0.0.1", 0)) as server:
        ports = {"taken": str(server.getsockname()[1]), "free": str(free_port())}
        stack = make_stack(**{key: _with(value, ports) for key, value in environment.items()})
        done = BITLADDER.run("bitladder.cli.main", *_with(command, ports).split(), env=stack.environment)

    assert (done.returncode, len(done.stderr.splitlines())) == (status, 1), done.stderr
    assert done.stderr.startswith("bitladder")
    assert _with(expected, ports) in done.stderr
    assert "SECRET" not in done.stderr + done.stdout


def test_an_output_that_cannot_be_written_is_one_line(make_stack: Callable[..., Stack]) -> None:
    command = [sys.executable, "-m", "bitladder.cli.main", "config", "show"]
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(
            command,
            env=make_stack().environment,
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )

    assert done.returncode == 1
    assert done.stderr.decode().splitlines()[0] == "bitladder: [Errno 28] No space left on device"
