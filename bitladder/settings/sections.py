"""Every setting with its default, its bounds and one sentence: the shape of bitladder.toml."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from bitladder.errors import ConfigError
from bitladder.settings.access import AuthSettings
from bitladder.settings.base import Name, split_credentials
from bitladder.settings.base import Section as _Section
from bitladder.settings.release import Published

Durability = Literal["memory", "everysec", "fsync"]


class RedisSettings(_Section):
    """Where the queue lives."""

    url: str = Field(
        "redis://127.0.0.1:6379/0",
        pattern=r"^(redis|rediss|unix)://",
        description="redis://, rediss:// or unix:// URL of the primary; Sentinels replace its host and port",
    )
    username: str | None = Field(None, description="of the ACL; unset: Redis' default user")
    password: SecretStr | None = Field(None, description="of the user; the URL may have both instead")
    password_file: str = Field("", description="file with the password instead, read for every new connection")
    ca_file: str = Field("", description="rediss: certificates to trust instead of the system's")
    cert_file: str = Field("", description="rediss: certificate shown to the server")
    key_file: str = Field("", description="rediss: its private key")
    timeout_s: float = Field(
        0.8, gt=0, le=60, description="connect limit, and longest silence of Redis before an answer or in its middle"
    )
    data_dir: str = Field("var/valkey", description="where the embedded Valkey keeps its append-only file")
    check_policy: bool = Field(True, description="refuse to start on a Redis that evicts keys")
    sentinels: tuple[str, ...] = Field((), description="host:port of each Sentinel: they say where the primary is")
    sentinel_name: str = Field("mymaster", min_length=1, description="what the Sentinels call the primary")

    @model_validator(mode="after")
    def _sentinels_are_addresses(self) -> Self:
        for one in self.sentinels:
            host, _, port = one.rpartition(":")
            if not host or not port.isdigit():
                raise ValueError(f"redis.sentinels must be a list of host:port, got {one!r}")
        if self.sentinels and self.scheme == "unix":
            raise ValueError(f"redis.url must be redis:// or rediss:// where Sentinels are asked, got {self.url!r}")
        return self

    @property
    def scheme(self) -> str:
        """The URL's scheme: redis, rediss or unix."""
        return self.url.partition(":")[0]

    @property
    def sentinel_addresses(self) -> list[tuple[str, int]]:
        """Host and port of each Sentinel."""
        parts = [one.rpartition(":") for one in self.sentinels]
        return [(host.strip("[]"), int(port)) for host, _, port in parts]

    @model_validator(mode="before")
    @classmethod
    def _credentials_leave_the_url(cls, values: dict[str, Any]) -> dict[str, Any]:
        return split_credentials(values)

    @model_validator(mode="after")
    def _password_is_given_once(self) -> Self:
        if self.password and self.password_file:
            raise ValueError("password must be given once: redis.password, in the url, or in redis.password_file")
        return self

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        files = (self.ca_file, self.cert_file, self.key_file)
        if any(files) and not self.url.startswith("rediss://"):
            raise ValueError(f"ca_file, cert_file and key_file need a rediss:// url, got {self.url!r}")
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("cert_file and key_file go together")
        return self


class IntakeSettings(_Section):
    """The HTTP side."""

    host: str = Field("127.0.0.1", description="address to bind")
    port: int = Field(8000, ge=0, le=65535, description="port to bind")
    max_body_bytes: int = Field(1_048_576, ge=1024, description="larger bodies get a 413")
    await_timeout_s: float = Field(600, gt=0, description="how long an awaited completion may take")
    max_wait_s: float = Field(60, gt=0, description="longest ?wait= of a job")
    admission: bool = Field(True, description="refuse at once what cannot be answered in its client's time")
    header_timeout_s: float = Field(10, gt=0, description="a request's headers must arrive in this time")
    body_timeout_s: float = Field(30, gt=0, description="a body must arrive in this time")
    stall_timeout_s: float = Field(30, gt=0, description="a client that takes nothing of its answer is cut off")
    max_connections: int = Field(1000, ge=1, description="connections open at once; those above it get a 503")
    keep_alive_s: int = Field(
        130, ge=1, description="an idle connection is kept so long: longer than proxies and clients keep theirs"
    )
    lame_duck_s: float = Field(5, ge=0, description="after SIGTERM: time to be unready while all are served")
    drain_grace_s: float = Field(30, ge=0, description="then: time to finish what is open, before it is sent elsewhere")
    heartbeat_s: float = Field(
        15, ge=0, description="a stream without an event for so long gets a comment line, its start included; 0: never"
    )
    root_path: str = Field(
        "",
        max_length=256,
        pattern=r"^(/[A-Za-z0-9_~][A-Za-z0-9._~-]*)*$",
        description="path that a proxy serves this intake below, as /llm: links begin with it, and requests may",
    )


class QueueSettings(_Section):
    """Limits and times of every queue."""

    max_depth: int = Field(100_000, ge=1, description="a longer queue answers 429")
    max_total: int = Field(200_000, ge=1, description="more jobs waiting in all queues of a model: 429")
    max_memory_share: float = Field(0.85, gt=0, le=1, description="of Redis' maxmemory; above, new jobs get a 503")
    result_ttl_s: int = Field(3600, ge=1, description="how long outcomes are kept")
    max_wait_s: int = Field(86_400, ge=1, description="deadline of jobs that name none")
    lease_s: float = Field(15, ge=1, le=3600, description="a worker silent for so long has lost its jobs")
    max_attempts: int = Field(3, ge=1, le=100, description="executions before a job is given up")
    max_per_tenant: int = Field(0, ge=0, description="jobs a tenant may have waiting or running; 0: no limit")
    fair_depth: int = Field(
        1000, ge=0, description="of a named tenant's jobs; those above it go to the batch lane; 0: none do"
    )
    dead_letter_ttl_s: int = Field(604_800, ge=1, description="how long dead letters are kept")
    max_dead_letters: int = Field(10_000, ge=1, description="dead letters kept; the oldest make room")
    secrets: tuple[SecretStr, ...] = Field(
        (), description="keys of at least 16 characters that sign jobs and outcomes: the first signs, all are accepted"
    )
    durability: Durability = Field(
        "everysec", description="what an accepted job survives: nothing, all but a second, or the loss of power"
    )
    wait_replicas: int = Field(0, ge=0, le=16, description="replicas that must have a job before it is accepted")
    deadline_share: float = Field(0.5, gt=0, le=1, description="share of its deadline a job waits before it may climb")

    @field_validator("secrets")
    @classmethod
    def _secrets_are_long(cls, secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if any(len(secret.get_secret_value()) < 16 for secret in secrets):
            raise ValueError("must have at least 16 characters each")
        return secrets


class LaneSettings(_Section):
    """Which lane a priority means, and which lanes may climb when they are long."""

    urgent_from: int = Field(8, ge=1, le=10, description="priorities from here on go to the urgent lane")
    batch_to: int = Field(2, ge=0, le=9, description="priorities up to here go to the batch lane")
    overflow: tuple[Literal["urgent", "normal", "batch"], ...] = Field(
        ("urgent", "normal"),
        description="lanes whose depth makes jobs climb; batch waits unless its tier is dead or time runs out",
    )


class PolicySettings(_Section):
    """How the floor tier is chosen."""

    name: str = Field("article", description="article, or fixed:<tier>")
    entropy_bits: float = Field(4.5, ge=0, le=8, description="above: the middle tier")
    top_priority: int = Field(8, ge=1, le=10, description="from here on: the top tier")
    patient_ms: int = Field(800, ge=0, description="a maximum latency above this: the top tier")


class CaptureSettings(_Section):
    """Prompts kept for calibration, redacted, in files of the intake (docs/calibration/sample.md)."""

    share: float = Field(0, ge=0, le=1, description="of requests whose prompts are kept; 0: none")
    folder: str = Field("var/capture", description="where they are kept; read by `bitladder calibrate sample`")
    max_mb: int = Field(256, ge=16, description="of the whole folder; the oldest go first")
    keep_s: int = Field(604_800, ge=60, description="how long a prompt is kept")
    without_tenants: tuple[Name, ...] = Field((), description="tenants whose prompts are never kept")


class WorkerSettings(_Section):
    """The pump."""

    engine: Literal["vllm", "remote", "echo"] = Field("vllm", description="what answers the jobs")
    min_slots: int = Field(1, ge=1, description="jobs in flight that are always allowed")
    drain_grace_s: float = Field(30, ge=0, description="after SIGTERM: time to finish what runs")
    block_s: float = Field(1.0, gt=0, le=5, description="longest wait for a push before looking again")
    check_output: bool = Field(True, description="escalate token loops and gibberish instead of delivering them")
    hang_s: float = Field(60, ge=1, description="an engine that shows no token for so long, with requests in it, hangs")
    fault_ratio: float = Field(0.01, ge=0, le=1, description="a larger share of broken requests restarts the engine")
    metrics_host: str = Field("127.0.0.1", description="address of /metrics")
    metrics_port: int | None = Field(None, ge=0, le=65535, description="port of /metrics; unset: none")


class VllmSettings(_Section):
    """The supervised vLLM server."""

    python: str = Field("", description="interpreter that has vLLM; empty: the worker's own")
    args: tuple[str, ...] = Field((), description="arguments for every tier")
    env: dict[str, str] = Field({}, description="environment for every tier")
    start_timeout_s: float = Field(900, gt=0, description="longest start, weights included")
    cache_dir: str = Field("~/.cache/bitladder/checkpoints", description="stands for {cache} in a checkpoint path")


class EchoSettings(_Section):
    """The echo engine: words of the prompt back, as slowly and as badly as asked."""

    ttft_ms: float = Field(20, ge=0, description="time to the first token")
    tokens_per_s: float = Field(200, gt=0, description="rate of the following tokens, per job")
    fault_ratio: float = Field(0, ge=0, le=1, description="share of jobs that end in an engine fault")
    seed: int = Field(0, description="of the faults")
    execution_log: str = Field("", description="file for a line per begin and end of an execution; empty: none")


class PublishSettings(_Section):
    """What a checkpoint must keep of the reference to be published, and where that is written."""

    file: str = Field("ladder.toml", description="the published release, beside the configuration file; empty: none")
    keep: int = Field(20, ge=1, le=1000, description="former ladders kept for rollback")
    min_recovery: dict[str, float] = Field(
        {"perplexity": 0.9, "top1": 0.75, "pass_at_1": 0.8, "task": 0.9},
        description="least share of the reference that a tier keeps, by metric, where that was measured",
    )
    max_kl: float = Field(0.2, gt=0, description="most divergence from the reference, mean nats per token")


class TierSettings(_Section):
    """One precision of a model."""

    name: Name = Field(description="name of the tier")
    hardware: str = Field("cpu", description="for people: what it runs on")
    price_per_hour: float = Field(0, ge=0, description="of one worker, in your currency")
    checkpoint: str = Field("", description="folder of the weights; {cache} stands for [vllm].cache_dir")
    url: str = Field("", description="engine = remote: base URL of an OpenAI-compatible server")
    slots: int = Field(16, ge=1, le=4096, description="most jobs in flight on one worker")
    high: int = Field(64, ge=1, description="a deeper queue overflows upward")
    low: int = Field(16, ge=0, description="until it is no deeper than this")
    vllm_args: tuple[str, ...] = Field((), description="arguments of this tier's vLLM server")
    published: Published | None = Field(
        None, description="version, digest and figures of the checkpoint; from the published release, not to be written"
    )

    @model_validator(mode="after")
    def _low_below_high(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low must be below high ({self.high}), got {self.low}")
        return self


class ModelSettings(_Section):
    """One logical model: a ladder of tiers, lowest quality first."""

    owned_by: str = Field("bitladder", description="owner shown by /v1/models")
    max_model_len: int = Field(2048, ge=1, description="context shown by /v1/models")
    tiers: tuple[TierSettings, ...] = Field(min_length=1, description="lowest quality first")

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [tier.name for tier in self.tiers]
        if len(set(names)) != len(names):
            raise ValueError(f"tier names must differ, got {', '.join(names)}")
        return self

    @property
    def ladder(self) -> tuple[str, ...]:
        """The tier names, lowest first."""
        return tuple(tier.name for tier in self.tiers)

    def tier(self, name: str) -> TierSettings:
        for tier in self.tiers:
            if tier.name == name:
                return tier
        raise ConfigError(f"tier must be one of {', '.join(self.ladder)}, got {name!r}")


class Settings(_Section):
    """All settings of one process."""

    redis: RedisSettings = RedisSettings()
    intake: IntakeSettings = IntakeSettings()
    auth: AuthSettings = AuthSettings()
    queue: QueueSettings = QueueSettings()
    lanes: LaneSettings = LaneSettings()
    policy: PolicySettings = PolicySettings()
    capture: CaptureSettings = CaptureSettings()
    worker: WorkerSettings = WorkerSettings()
    vllm: VllmSettings = VllmSettings()
    echo: EchoSettings = EchoSettings()
    publish: PublishSettings = PublishSettings()
    models: dict[Name, ModelSettings] = Field(min_length=1, description="the models served, by name")

    @model_validator(mode="after")
    def _fixed_policy_names_a_tier(self) -> Self:
        kind, _, tier = self.policy.name.partition(":")
        if kind not in ("article", "fixed") or (kind == "article") == bool(tier):
            raise ValueError(f"policy.name must be 'article' or 'fixed:<tier>', got {self.policy.name!r}")
        for name, model in self.models.items():
            if tier and tier not in model.ladder:
                raise ValueError(f"policy.name: model {name} has tiers {', '.join(model.ladder)}, not {tier!r}")
        return self

    def model(self, name: str) -> ModelSettings:
        try:
            return self.models[name]
        except KeyError:
            raise ConfigError(f"model must be one of {', '.join(self.models)}, got {name!r}") from None
