"""Live settings: changed by command or over HTTP, taken by every running process, refused where they are wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
import redis

from bitladder.settings.access import key_hash
from tests.conftest import Stack, free_port, wait_until
from tests.integration.operating.test_operator_commands import by_redis, entries

pytestmark = pytest.mark.stack
HIGH = "models.smollm2.tiers.int4.high"
SECRET = "a secret of ours, long enough"  # noqa: S105


def settings(stack: Stack, *arguments: str, returncode: int = 0) -> str:
    """Run one command straight on Redis."""
    done = by_redis(stack, "settings", *arguments)
    assert done.returncode == returncode, done.stderr
    return done.stdout + (done.stderr if returncode else "")


def metric(port: int, name: str) -> float:
    text = httpx2.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text
    (value,) = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
    return float(value)


def worker(stack: Stack, port: int) -> None:
    stack.environment["BITLADDER_WORKER__METRICS_PORT"] = str(port)
    stack.worker("int4")


def floor(stack: Stack) -> str:
    return str(stack.http.post("/v1/jobs", json={"model": "smollm2", "prompt": "a"}).json()["floor"])


def change(stack: Stack, **body: Any) -> httpx2.Response:  # noqa: ANN401
    return stack.http.patch("/v1/settings", json=body)


def test_a_change_is_taken_by_running_processes_and_by_new_ones_and_is_undone_by_unset(
    make_stack: Callable[..., Stack], store: redis.Redis
) -> None:
    stack, port = make_stack(BITLADDER_ECHO__TTFT_MS="1500"), free_port()
    stack.intake()
    worker(stack, port)
    assert (floor(stack), metric(port, "bitladder_worker_slots")) == ("int4", 16)

    settings(
        stack, "set", "policy.name=fixed:fp8", "models.smollm2.tiers.int4.slots=2", f"{HIGH}=32", "--reason", "peak"
    )

    wait_until(lambda: floor(stack) == "fp8", "the intake goes by the new policy", 3)
    wait_until(lambda: metric(port, "bitladder_worker_slots") == 2, "the worker has the new slots", 3)
    assert metric(stack.port, "bitladder_live_settings_revision") == 1
    for _ in range(12):
        body = {"model": "smollm2@int4", "prompt": "a b"}
        assert stack.http.post("/v1/jobs", json=body).status_code == 202
    wait_until(lambda: metric(port, "bitladder_worker_in_flight") == 2, "the worker holds as many jobs as it has slots")
    answer = change(stack, set={"models.smollm2.tiers.int4.slots": 6}, revision=1)
    assert answer.json()["changes"] == [{"key": "models.smollm2.tiers.int4.slots", "old": 2, "new": 6, "unset": False}]
    wait_until(lambda: metric(port, "bitladder_worker_in_flight") > 2, "more slots are filled at once", 3)

    second = free_port()
    worker(stack, second)
    assert metric(second, "bitladder_worker_slots") == 6  # it starts with them
    shown = by_redis(stack, "config", "show").stdout
    assert re.search(rf"^{re.escape(HIGH)} = 32  # live settings, revision 1, by \S+@\S+$", shown, re.MULTILINE)

    settings(stack, "unset", "policy.name", "--reason", "over")

    wait_until(lambda: floor(stack) == "int4", "the file's policy counts again", 3)
    store.lpush("bl:settings:history", b"none of ours", b"\xff", b"[]")
    entries = json.loads(settings(stack, "history", "--limit", "3", "--json"))["data"]
    assert [(entry["revision"], entry["reason"]) for entry in entries] == [(3, "over"), (2, ""), (1, "peak")]
    assert entries[0]["changes"] == [{"key": "policy.name", "old": "fixed:fp8", "new": "article", "unset": True}]
    assert entries[1]["by"] == "anybody (no API keys are required)"
    live = stack.http.get("/v1/settings", params={"live": "true"}).json()
    assert {row["key"]: (row["value"], row["configured"]) for row in live["data"]} == {
        HIGH: (32, 64),
        "models.smollm2.tiers.int4.slots": (6, 16),
    }
    assert store.llen("bl:settings:history") == 6


def test_a_command_that_asks_redis_itself_goes_by_the_live_settings_as_an_intake_does(
    make_stack: Callable[..., Stack], store: redis.Redis
) -> None:
    stack = make_stack()
    stack.intake()
    settings(stack, "set", "queue.max_depth=1")
    assert floor(stack) == "int4"

    notes = json.loads(by_redis(stack, "top", "--json").stdout)["notes"]

    assert [note["text"] for note in notes if "full" in note["text"]] == [
        "smollm2:int4:normal: full, 1 jobs wait; new ones are refused"
    ]


def test_a_change_for_a_while_ends_by_itself_and_what_was_set_before_counts_again(
    make_stack: Callable[..., Stack],
) -> None:
    stack = make_stack()
    stack.intake()
    settings(stack, "set", "policy.name=fixed:int8")
    assert "--for takes a span" in settings(stack, "set", "policy.name=fixed:fp8", "--for", "", returncode=2)
    settings(stack, "set", "policy.name=fixed:fp8", "--for", "3s")

    wait_until(lambda: floor(stack) == "fp8", "the intake goes by it", 3)
    (row,) = stack.http.get("/v1/settings", params={"live": "true"}).json()["data"]
    assert row["live"]["until"] == pytest.approx(row["live"]["at"] + 3)
    wait_until(lambda: floor(stack) == "int8", "it has ended", 5)

    (row,) = stack.http.get("/v1/settings", params={"live": "true"}).json()["data"]
    assert (row["value"], row["live"]["until"], row["live"]["revision"]) == ("fixed:int8", None, 1)
    assert re.search(r"fixed:fp8\W+until 20\d\d-", settings(stack, "history"))
    assert change(stack, set={HIGH: 32}, for_s=0).status_code == 400
    assert "for_s is of new values" in change(stack, unset=["policy.name"], for_s=60).text


def test_what_redis_has_is_refused_where_it_is_not_ours_and_named_until_it_is_mended(
    make_stack: Callable[..., Stack], store: redis.Redis
) -> None:
    stack, port = make_stack(BITLADDER_QUEUE__SECRETS=json.dumps([SECRET])), free_port()
    stack.intake()
    worker(stack, port)
    assert change(stack, set={"policy.name": "fixed:fp8"}).status_code == 200
    wait_until(lambda: floor(stack) == "fp8", "the intake goes by the new policy", 3)
    ours = store.get("bl:settings")
    assert isinstance(ours, bytes)

    def refused_as(words: str) -> None:
        wait_until(
            lambda: words in str(stack.http.get("/readyz").json()["refused_change"]), f"readiness says {words}", 3
        )
        assert floor(stack) == "fp8"

    store.set("bl:settings", ours.replace(b"fp8", b"int8"))
    refused_as("are not signed with one of queue.secrets")
    store.delete("bl:settings")
    store.rpush("bl:settings", "x")
    refused_as("the key is no string")
    wait_until(lambda: metric(port, "bitladder_worker_changes_refused") >= 1, "the worker counts it")
    refused = change(stack, set={"policy.name": "article"})
    assert (refused.status_code, "the key is no string" in refused.text) == (400, True)

    assert change(stack, unset_all=True, reason="broken").status_code == 200

    wait_until(lambda: stack.http.get("/readyz").json()["refused_change"] is None, "nothing is refused any more", 3)
    assert floor(stack) == "int4"


def test_wrong_changes_are_answered_by_name_and_change_nothing(
    make_stack: Callable[..., Stack], store: redis.Redis
) -> None:
    keys: dict[str, dict[str, object]] = {
        "ops": {"hash": key_hash(b"ops"), "tenant": "ops", "scopes": ["ops"]},
        "reads": {"hash": key_hash(b"reads"), "tenant": "ops", "scopes": ["ops:read"]},
        "acme": {"hash": key_hash(b"acme"), "tenant": "acme"},
    }
    tables = ", ".join(f"{name} = {{{entries(key)}}}" for name, key in keys.items())
    stack = make_stack(BITLADDER_AUTH__KEYS=f"{{{tables}}}")
    stack.intake()
    stack.http.headers["Authorization"] = "Bearer ops"

    wrong = change(stack, set={HIGH: 5, "policy.entropy_bits": 9})
    assert wrong.status_code == 400
    assert "low must be below high (5), got 16" in wrong.text
    assert "policy.entropy_bits: Input should be less than or equal to 8, got 9" in wrong.text
    assert "intake.port is not a setting that may be changed" in change(stack, set={"intake.port": 1}).text
    assert "set, unset, unset_all" in change(stack, sett={}).text
    assert "must name settings" in change(stack).text
    assert change(stack, set={HIGH: 32}, revision=7).json()["error"]["code"] == "revision_conflict"
    assert change(stack, set={HIGH: 32}, dry_run=True).json()["revision"] == 1
    assert "low must be below high" in settings(stack, "set", f"{HIGH}=5", returncode=2)
    assert not store.exists("bl:settings", "bl:settings:history")
    stack.http.headers["Authorization"] = "Bearer reads"
    assert [change(stack, set={HIGH: 32}).status_code, stack.http.get("/v1/settings").status_code] == [403, 200]
    stack.http.headers["Authorization"] = "Bearer acme"
    assert [change(stack, set={HIGH: 32}).status_code, stack.http.get("/v1/settings").status_code] == [403, 403]
