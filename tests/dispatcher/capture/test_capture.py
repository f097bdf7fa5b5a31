"""Captured prompts: which are kept, in which form, and for how long."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bitladder.endpoints import Endpoint
from bitladder.routing.accept import Accepted, Incoming, accept
from bitladder.settings.intake_section import CaptureSettings
from dispatcher.capture import capture as module
from dispatcher.capture.capture import Capture
from dispatcher.capture.labels import labels
from dispatcher.metrics.intake_metrics import IntakeMetrics
from tests.conftest import make_settings, wait_until

SETTINGS = make_settings("redis://127.0.0.1:1/0")


def job(
    number: int,
    prompt: str = "Why?",
    *,
    tenant: str = "default",
    chat: bool = False,
    metadata: object = None,
    tags: str = "",
) -> Accepted:
    messages = [{"role": "user", "content": prompt}] * 2
    text = {"messages": messages} if chat else {"prompt": prompt}
    incoming = Incoming(
        endpoint=Endpoint.CHAT if chat else Endpoint.COMPLETIONS,
        body=msgspec.json.encode({"model": "smollm2", "metadata": metadata, **text}),
        headers={"x-max-latency-ms": "700", "x-tags": tags},
        request_id="",
        tenant=tenant,
    )
    accepted = accept(incoming, SETTINGS)
    submission = msgspec.structs.replace(accepted.submission, job_id=f"job-{number}")
    return msgspec.structs.replace(accepted, submission=submission)


def capture(folder: Path, metrics: IntakeMetrics | None = None, **settings: Any) -> Capture:  # noqa: ANN401  (any setting)
    chosen = CaptureSettings(folder=str(folder), **{"share": 1.0, **settings})
    return Capture(lambda: chosen, metrics or IntakeMetrics())


def start(mine: Capture) -> None:
    if mine.is_needed:
        threading.Thread(target=mine.run, daemon=True).start()


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]


def test_nothing_is_kept_unless_a_share_is_set(tmp_path: Path) -> None:
    mine = Capture(lambda: CaptureSettings(folder=str(tmp_path / "kept")), IntakeMetrics())
    start(mine)
    for number in range(100):
        mine.offer(job(number))
    mine.stop()

    assert not (tmp_path / "kept").exists()


def test_prompts_are_kept_redacted_with_the_tier_that_served_them(tmp_path: Path) -> None:
    metrics = IntakeMetrics()
    mine = capture(tmp_path, metrics)
    start(mine)
    mine.offer(job(1, "write to bob@example.org, card 4111 1111 1111 1111"))
    mine.offer(job(2, "Hello", chat=True))
    mine.served("job-2", "int8")
    mine.served("job-3", "int8")
    mine.stop()

    first, second, served = lines(tmp_path)
    assert (first["prompt"], first["tier"], first["turns"]) == (
        "write to name@example.com, card 0000 0000 0000 0000",
        "int4",
        1,
    )
    assert (first["priority"], first["max_latency_ms"]) == (5, 700)
    assert (second["prompt"], second["turns"]) == ("Hello\nHello", 2)
    assert served == {"id": "job-2", "served": "int8"}
    assert metrics.captured("written")._value.get() == 2


def test_a_prompt_is_kept_with_what_tells_where_it_came_from(tmp_path: Path) -> None:
    mine = capture(tmp_path)
    start(mine)
    mine.offer(job(1, tenant="shop", metadata={"route": "tickets", "customer": 4111_1111_1111_1111, "trial": True}))
    mine.offer(job(2, chat=True))
    mine.stop()

    first, second = lines(tmp_path)
    assert (first["tenant"], first["model"], first["endpoint"]) == ("shop", "smollm2", "/v1/completions")
    assert first["metadata"] == {"route": "tickets", "customer": "0000000000000000", "trial": True}
    assert (second["tenant"], second["endpoint"], second["metadata"]) == ("default", "/v1/chat/completions", {})


def test_a_request_with_the_tag_no_capture_is_left_out(tmp_path: Path) -> None:
    mine = capture(tmp_path)
    start(mine)
    mine.offer(job(1, tags="nightly, no-capture"))
    mine.offer(job(2, tags="nightly", metadata={"note": "no-capture"}))
    mine.stop()

    assert [line["id"] for line in lines(tmp_path)] == ["job-2"]


def test_labels_are_few_and_short_and_carry_no_secret() -> None:
    many = {f"name {number}": "value" for number in range(40)}
    odd = {"bob@example.org": "x", "n" * 65: "x", "list": [1], "long": "x" * 600, "nothing": None}
    key = {"key": "sk-proj-abcDEF1234567890abcd", "text": "y" * 500}

    def read(metadata: object) -> dict[str, object]:
        return dict(labels(msgspec.json.encode({"model": "m", "metadata": metadata})))

    assert list(read(odd | key)) == ["key", "text"]
    assert read(key) == {"key": "<key>", "text": "y" * 40}
    assert len(read(many)) == 16
    assert labels(b'{"model": "m"}') == {}


def test_a_share_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_WAITING", 10_000)
    mine = capture(tmp_path, share=0.1)
    start(mine)
    for number in range(2000):
        mine.offer(job(number))
    mine.stop()

    assert 130 < len(lines(tmp_path)) < 280


def test_tenants_may_be_left_out(tmp_path: Path) -> None:
    mine = capture(tmp_path, without_tenants=("clinic",))
    start(mine)
    mine.offer(job(1, tenant="clinic"))
    mine.offer(job(2, tenant="shop"))
    mine.stop()

    assert [line["id"] for line in lines(tmp_path)] == ["job-2"]


def test_a_giant_prompt_is_cut_and_no_key_survives_at_the_cut(tmp_path: Path) -> None:
    mine = capture(tmp_path)
    start(mine)
    mine.offer(job(1, "x " * 16_379 + "sk-proj-abcDEF1234567890abcd" + " y" * 100_000))
    mine.stop()

    (only,) = lines(tmp_path)
    assert len(only["prompt"]) == 32_768
    assert "sk-proj" not in only["prompt"]


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    mine = capture(tmp_path / "kept")
    start(mine)
    mine.offer(job(1))
    mine.stop()

    (path,) = (tmp_path / "kept").glob("*.jsonl")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_old_files_and_files_above_the_size_go_oldest_first(tmp_path: Path) -> None:
    for name, age_s in (("20200101T1-a", 7200), ("20200102T1-a", 60), ("20200103T1-a", 50), ("20200104T1-a", 40)):
        path = tmp_path / f"{name}.jsonl"
        path.write_bytes(b" " * 7 * 2**20)
        os.utime(path, (time.time() - age_s,) * 2)
    (tmp_path / "notes.txt").write_text("not ours")
    mine = capture(tmp_path, keep_s=3600, max_mb=16)
    start(mine)
    mine.offer(job(1))
    mine.stop()

    assert [path.name[:10] for path in sorted(tmp_path.glob("2020*"))] == ["20200103T1", "20200104T1"]
    assert (tmp_path / "notes.txt").exists()


def test_what_is_left_goes_in_time_after_capturing_was_switched_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "20200101T1-a.jsonl"
    path.write_text("{}\n")
    os.utime(path, (time.time() - 7200,) * 2)
    monkeypatch.setattr(module, "_TIDY_INTERVAL_S", 0.01)
    mine = capture(tmp_path, share=0, keep_s=3600)

    start(mine)

    wait_until(lambda: not path.exists(), "the old file is gone")
    mine.stop()


def test_a_disk_that_cannot_be_written_drops_prompts_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    metrics = IntakeMetrics()
    mine = capture(tmp_path / "file" / "folder", metrics)
    start(mine)
    for number in range(3):
        mine.offer(job(number))
    mine.stop()

    assert metrics.captured("dropped")._value.get() == 3
    assert metrics.captured("written")._value.get() == 0


def test_a_burst_is_sampled_more_thinly_instead_of_held_in_memory(tmp_path: Path) -> None:
    metrics = IntakeMetrics()
    mine = capture(tmp_path, metrics)  # its thread has not started: nothing is taken out
    for number in range(1000):
        mine.offer(job(number))

    assert metrics.captured("dropped")._value.get() == 1000 - 256
