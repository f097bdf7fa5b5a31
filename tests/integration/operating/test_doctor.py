"""bitladder doctor as a command, against a real server, real folders and other processes' programs."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import redis

from tests.conftest import OwnValkey, Stack, free_port
from tests.integration.intake.test_security import keys_in_toml
from tests.s3_server import s3_server
from tests.warm_start import BITLADDER
from tests.workers.engines.gpus import A10G, install_nvidia_smi, quantized

Make = Callable[..., Stack]
S3 = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "SECRET", "AWS_REGION": "us-east-1"}


def doctor(environment: dict[str, str], *arguments: str) -> tuple[int, dict[str, dict[str, Any]], str]:
    """Run it with --json; return its exit status, its findings by check (the worst of each), and all that it wrote."""
    done = BITLADDER.run("bitladder.cli.main", "doctor", "--json", *arguments, env=environment)
    assert done.stdout, done.stderr
    order = ["skipped", "ok", "warn", "fail"]
    findings = sorted(json.loads(done.stdout)["findings"], key=lambda one: order.index(one["status"]))
    return done.returncode, {one["check"]: one for one in findings}, done.stdout + done.stderr


def test_a_running_stack_is_well_and_nothing_is_changed(make_stack: Make) -> None:
    stack = make_stack()
    stack.intake()
    stack.worker("int4")

    status, findings, _ = doctor(stack.environment, "--role", "intake")

    assert status == 0, findings
    assert {check.partition(".")[0] for check in findings} >= {"config", "redis", "worker", "ports", "keys", "disk"}
    assert findings["redis.serves"]["status"] == "ok"
    assert findings["ports.intake"]["detail"] == "held by an intake of bitladder, which is ready"
    assert "no live worker of int8, fp8" in findings["worker.live"]["detail"]
    assert findings["worker.live"]["cure"].startswith("bitladder worker --model smollm2 --tier int8")
    assert findings["checkpoints.folder"]["status"] == "skipped"  # the engine is echo
    assert doctor(stack.environment, "--strict")[0] == 1
    assert set(doctor(stack.environment, "--only", "keys,disk")[1]) == {"keys.required", "disk.files"}


def test_the_embedded_server_has_no_warning(own_valkey: OwnValkey) -> None:
    status, findings, _ = doctor(Stack(own_valkey.url).environment, "--only", "redis", "--strict")

    assert (status, findings["redis.memory"]["status"]) == (0, "ok"), findings


def test_what_fails_is_told_with_its_cure_and_without_secrets(make_stack: Make, tmp_path: Path) -> None:
    ended = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    with socket.create_server(("127.0.0.1", 0)) as other:
        stack = make_stack(
            BITLADDER_INTAKE__PORT=str(other.getsockname()[1]),
            BITLADDER_AUTH__KEYS=f'{{old = {{hash = "{"a1" * 32}", tenant = "acme", expires = "{ended}"}}}}',
            BITLADDER_REDIS__URL=f"redis://me:SECRET@127.0.0.1:{free_port()}/0",
            BITLADDER_FILES__STORE="/proc/none",
            BITLADDER_VLLM__ENV='{HF_TOKEN = "SECRET"}',
        )

        status, findings, text = doctor(stack.environment)

    assert status == 1
    for check in ("redis.serves", "ports.intake", "keys.expiry", "disk.files"):
        assert (findings[check]["status"], bool(findings[check]["cure"])) == ("fail", True), check
    assert findings["worker.live"]["status"] == "skipped"
    assert "SECRET" not in text
    assert "a1a1" not in text
    exposed = stack.environment | {"BITLADDER_INTAKE__HOST": "::", "BITLADDER_AUTH__REQUIRED": "false"}
    assert doctor(exposed | {"BITLADDER_AUTH__KEYS": "{}"}, "--only", "keys")[1]["keys.required"]["status"] == "fail"


def test_a_broken_configuration_is_the_finding(make_stack: Make) -> None:
    environment = make_stack(BITLADDER_QUEUE__LEASE_S="-5").environment

    status, findings, _ = doctor(environment)

    assert (status, list(findings)) == (1, ["config.load"])
    assert "queue.lease_s" in findings["config.load"]["detail"]
    for wrong in (("--only", "nothing"), ("--tier", "int3")):
        done = BITLADDER.run("bitladder.cli.main", "doctor", *wrong, env=make_stack().environment)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


def test_live_settings_count_and_those_that_do_not_fit_are_named(make_stack: Make, store: redis.Redis) -> None:
    environment = make_stack(BITLADDER_WORKER__ENGINE="vllm").environment
    order = ("settings", "set", "models.smollm2.tiers.int4.slots=20", "--reason", "a test")
    assert BITLADDER.run("bitladder.cli.main", *order, env=environment).returncode == 0

    findings = doctor(environment, "--only", "config,vllm")[1]

    assert findings["config.live"]["detail"] == "1 values are set"
    assert "--max-num-seqs 16 is less than slots (20)" in findings["vllm.max_num_seqs"]["detail"]
    store.set("bl:settings", "nonsense")
    status, findings, _ = doctor(environment, "--only", "config")
    assert (status, findings["config.live"]["status"]) == (1, "fail")


def test_a_gpu_without_units_for_a_tier_s_numbers_fails(make_stack: Make, tmp_path: Path) -> None:
    config = quantized(("float", 8), ("float", 8)) | {"max_position_embeddings": 2048}
    folder = tmp_path / "smollm2" / "fp8"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"\0" * 1000)
    stack = make_stack(BITLADDER_WORKER__ENGINE="vllm", BITLADDER_VLLM__CACHE_DIR=str(tmp_path))
    machine = stack.environment | {"PATH": install_nvidia_smi(tmp_path / "bin", A10G)}

    status, findings, _ = doctor(machine, "--only", "gpu,checkpoints,vllm", "--tier", "fp8")

    assert status == 1
    assert findings["checkpoints.precision"]["detail"] == "FP8 W8A8"
    assert "NVIDIA A10G has compute capability 8.6, FP8 W8A8 needs at least 8.9" in findings["gpu.capability"]["detail"]
    assert "INT8" in findings["gpu.capability"]["cure"]
    assert findings["gpu.hardware"]["status"] == "ok"  # the settings name an H100
    assert findings["vllm.eager"]["status"] == "warn"
    without = {name: value for name, value in machine.items() if name != "PATH"} | {"PATH": "/nowhere"}
    assert doctor(without, "--only", "gpu")[1]["gpu.seen"]["detail"].startswith("no GPU seen")


def test_rights_in_a_bucket_are_tried_by_an_object(make_stack: Make) -> None:
    with s3_server() as url:
        stack = make_stack(BITLADDER_FILES__STORE="s3://files/a", AWS_ENDPOINT_URL=url, **S3)
        assert doctor(stack.environment, "--only", "store")[1]["store.rights"]["status"] == "fail"  # no such bucket
        httpx2.put(f"{url}/files").raise_for_status()

        status, findings, text = doctor(stack.environment, "--only", "store")

        assert (status, findings["store.rights"]["status"]) == (0, "ok"), text
        assert "<Key>" not in httpx2.get(f"{url}/files").text  # nothing is left
        assert "SECRET" not in text


def test_keys_are_only_read_where_an_intake_is(make_stack: Make) -> None:
    environment = make_stack(BITLADDER_AUTH__KEYS=keys_in_toml()).environment

    assert doctor(environment, "--only", "keys")[1]["keys.required"]["detail"].startswith("required; ")
    worker = doctor(environment, "--only", "keys,store,ports", "--role", "worker")[1]
    assert {finding["status"] for finding in worker.values()} == {"skipped"}
