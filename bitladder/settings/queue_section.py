"""Settings of the queue: limits, times, signatures, durability."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr, field_validator

from bitladder.settings.base import Section

Durability = Literal["memory", "everysec", "fsync"]


class QueueSettings(Section):
    """Limits and times of every queue."""

    max_depth: int = Field(100_000, ge=1, description="jobs in one queue; above: 429")
    max_total: int = Field(200_000, ge=1, description="jobs waiting in all queues of a model; above: 429")
    max_memory_share: float = Field(0.85, gt=0, le=1, description="of Redis' maxmemory; above, new jobs get a 503")
    result_ttl_s: int = Field(3600, ge=1, description="how long outcomes are kept")
    response_ttl_s: int = Field(604_800, ge=1, description="how long stored responses are kept, with their requests")
    max_response_bytes: int = Field(
        67_108_864, ge=1, description="bytes of stored responses that a tenant may have; the oldest make room"
    )
    max_wait_s: int = Field(86_400, ge=1, description="deadline of jobs that name none")
    lease_s: float = Field(
        15, ge=1, le=3600, description="a worker that does not renew its lease for so long loses its jobs"
    )
    max_attempts: int = Field(3, ge=1, le=100, description="executions of a job before it fails")
    max_per_tenant: int = Field(0, ge=0, description="jobs a tenant may have waiting or running; 0: no limit")
    fair_depth: int = Field(
        1000, ge=0, description="jobs of a named tenant in one lane; those above it go to the batch lane; 0: none do"
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
    deadline_share: float = Field(
        0.5, gt=0, le=1, description="share of its deadline that a job waits before it may overflow to a higher tier"
    )

    shift_fault_ratio: float = Field(
        0.2, gt=0, le=1, description="share of a tier's jobs that break; above, its traffic shifts up; 1: never"
    )
    shift_window_s: float = Field(30, ge=1, le=3600, description="the share is that of about so many seconds")
    shift_hold_s: float = Field(
        10, ge=1, le=300, description="shortest shift; each soon after another is twice as long"
    )
    probe_interval_s: float = Field(
        1, ge=0.1, le=60, description="how often each worker of a shifted tier runs one job that could go up"
    )
    prefix_bytes: int = Field(
        0, ge=0, le=1 << 20, description="jobs whose prompts begin with the same so many bytes go to one worker; 0: off"
    )

    @field_validator("secrets")
    @classmethod
    def _secrets_are_long(cls, secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if any(len(secret.get_secret_value()) < 16 for secret in secrets):
            raise ValueError("must have at least 16 characters each")
        return secrets
