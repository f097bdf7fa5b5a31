"""Settings of workers and of their engines."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr

from bitladder.settings.base import Section


class WorkerSettings(Section):
    """The worker process."""

    engine: Literal["vllm", "remote", "echo"] = Field("vllm", description="what answers the jobs")
    min_slots: int = Field(1, ge=1, description="jobs in flight that are always allowed, however slow the engine is")
    drain_grace_s: float = Field(30, ge=0, description="after SIGTERM: time to finish what runs")
    block_s: float = Field(1.0, gt=0, le=5, description="longest wait for a pushed job before the queues are polled")
    check_output: bool = Field(
        True, description="escalate token loops and gibberish by one tier instead of delivering them"
    )
    batch_yields: bool = Field(
        True, description="return young batch jobs to their queue where a more urgent job waits and no slot is free"
    )
    hang_s: float = Field(
        60, ge=1, description="an engine with requests that yields no token for so long counts as hung"
    )
    fault_ratio: float = Field(
        0.01, ge=0, le=1, description="share of requests that fail in the engine; above, it is restarted"
    )
    metrics_host: str = Field("127.0.0.1", description="address of /metrics")
    metrics_port: int | None = Field(None, ge=0, le=65535, description="port of /metrics; unset: none")


class CascadeSettings(Section):
    """Answers of lower tiers that are kept only where the model was sure of them (docs/routing.md)."""

    calibration: str = Field("", description="JSON file of confidences by margins; empty: no cascade")
    accept: float = Field(
        0.8, ge=0, le=1, description="confidence from which an answer is kept; below, the job escalates"
    )
    always: bool = Field(False, description="judge every answer that can be; else those with X-Cascade: true")


class VllmSettings(Section):
    """The supervised vLLM server."""

    python: str = Field("", description="interpreter that has vLLM; empty: the worker's own")
    args: tuple[str, ...] = Field((), description="arguments for every tier")
    env: dict[str, SecretStr] = Field({}, description="environment for every tier; no value of it is shown")
    check_gpu: bool = Field(True, description="refuse a checkpoint whose numbers the machine's GPU has no units for")
    start_timeout_s: float = Field(900, gt=0, description="longest start, weights included")
    cache_dir: str = Field(
        "~/.cache/bitladder/checkpoints",
        description="stands for {cache} in a checkpoint path; where XDG_CACHE_HOME is set, the default is below it",
    )

    @property
    def environment(self) -> dict[str, str]:
        """The environment with its values, for the server's process."""
        return {name: value.get_secret_value() for name, value in self.env.items()}


class EchoSettings(Section):
    """The echo engine: words of the prompt back, as slowly and as badly as asked."""

    max_model_len: int = Field(131_072, ge=1, description="tokens of a prompt and its answer together")
    ttft_ms: float = Field(20, ge=0, description="time to the first token")
    tokens_per_s: float = Field(200, gt=0, description="rate of the following tokens, per job")
    curves: str = Field("", description="file of service curves, one by the tier's name; empty: the two above hold")
    fault_ratio: float = Field(0, ge=0, le=1, description="share of jobs that end in an engine fault")
    seed: int = Field(0, description="seed of the faults")
    multimodal: bool = Field(False, description="whether pictures and sound are taken; they say nothing")
    execution_log: str = Field("", description="file for a line per begin and end of an execution; empty: none")
