"""Settings of the HTTP interface, of the files and prompts that it keeps, and of the webhooks that it sends."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from bitladder.settings.base import Name, Section

_ORIGIN = re.compile(
    r"\*|[a-z][a-z0-9+.-]*://[a-z0-9._-]+(:[0-9]{1,5})?|[a-z][a-z0-9+.-]*://\[[0-9a-f:.]+\](:[0-9]{1,5})?"
)


def _origin(value: str) -> str:
    if not _ORIGIN.fullmatch(value):
        raise ValueError(
            "must be origins as browsers send them: https://app.example.org, http://localhost:3000; or '*'"
        )
    return value


def _seconds_or_never(value: object) -> float | str:
    if value == "never":
        return "never"
    try:
        seconds = float(str(value))
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= 86_400:
        raise ValueError('must be a number of seconds from 0 to 86400, or "never"')
    return seconds


class IntakeSettings(Section):
    """The HTTP side."""

    host: str = Field("127.0.0.1", description="address to bind")
    port: int = Field(8000, ge=0, le=65535, description="port to bind")
    max_body_bytes: int = Field(1_048_576, ge=1024, description="larger bodies get a 413")
    await_timeout_s: float = Field(600, gt=0, description="how long an awaited completion may take")
    max_wait_s: float = Field(60, gt=0, description="longest ?wait= of a job")
    admission: bool = Field(
        True, description="refuse at once what cannot be answered within its client's latency budget"
    )
    header_timeout_s: float = Field(10, gt=0, description="a request's headers must arrive in this time")
    body_timeout_s: float = Field(30, gt=0, description="a body must arrive in this time")
    stall_timeout_s: float = Field(
        30, gt=0, description="a client that reads nothing of its answer for so long is disconnected"
    )
    max_connections: int = Field(1000, ge=1, description="connections open at once; those above it get a 503")
    keep_alive_s: int = Field(
        130, ge=1, description="an idle connection is kept so long: longer than proxies and clients keep theirs"
    )
    lame_duck_s: float = Field(5, ge=0, description="after SIGTERM: time to be unready and still serve all requests")
    drain_grace_s: float = Field(
        30, ge=0, description="then: time to finish open requests, before their clients are sent to another intake"
    )
    heartbeat_s: float = Field(
        15, ge=0, description="a stream without an event for so long gets a comment line, its start included; 0: never"
    )
    abort_after_s: Annotated[float | Literal["never"], BeforeValidator(_seconds_or_never)] = Field(
        0.0,
        description="the job of an awaited or streamed request whose client closed the connection is cancelled after "
        "so long, unless somebody reads it by then; never: it runs to its end",
    )
    cors_origins: tuple[Annotated[str, AfterValidator(_origin)], ...] = Field(
        (), description="web pages that may use the intake: origins as https://app.example.org, or *; needs API keys"
    )
    page: bool = Field(True, description="serve the operators' page at / (docs/operating/page.md)")
    root_path: str = Field(
        "",
        max_length=256,
        pattern=r"^(/[A-Za-z0-9_~][A-Za-z0-9._~-]*)*$",
        description="path that a proxy serves this intake below, as /llm: links begin with it, and requests may",
    )


class FilesSettings(Section):
    """Files that clients upload, and those with a batch's results (docs/api/files.md)."""

    store: str = Field(
        "var/files",
        min_length=1,
        description="where they are kept: a folder that all intakes share, or s3://bucket/prefix",
    )
    max_mb: int = Field(200, ge=1, le=10_000, description="size of an uploaded file, in MB of 2^20 bytes")
    max_lines: int = Field(50_000, ge=1, le=1_000_000, description="lines of a batch's input file")
    max_uploads: int = Field(8, ge=1, description="uploads to one intake at once; those above it get a 429")
    max_files: int = Field(1000, ge=1, le=100_000, description="files of one tenant")
    max_total_mb: int = Field(20_000, ge=1, description="size of one tenant's files together")
    keep_s: int = Field(
        2_592_000, ge=3600, description="how long a file is kept whose upload names no expires_after: 30 days"
    )


def _network(value: str) -> str:
    try:
        ipaddress.ip_network(value)
    except ValueError as error:
        raise ValueError(f"must be networks as 10.0.0.0/8 or fd00::/8: {error}") from None
    return value


class WebhookSettings(Section):
    """Messages to clients' servers about what has ended."""

    allowed_networks: tuple[Annotated[str, AfterValidator(_network)], ...] = Field(
        (), description="private networks that webhooks may reach, as 10.0.0.0/8; public addresses they always may"
    )
    allow_http: bool = Field(False, description="URLs may begin with http://, not only those of loopback addresses")
    timeout_s: float = Field(15, gt=0, le=60, description="a receiver must have answered in this time")
    retry_s: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400),
        max_length=30,
        description="pauses after each failed attempt, up to a tenth longer by chance; after the last the delivery is "
        "given up",
    )
    disable_after_s: float = Field(432_000, gt=0, description="an endpoint that has failed for so long is disabled")
    max_endpoints: int = Field(50, ge=1, le=1000, description="endpoints of a tenant")
    max_pending: int = Field(
        10_000, ge=1, description="deliveries that may wait for one destination; those above it are dropped"
    )


class BatchSettings(Section):
    """Batches: files of requests that run in the background (docs/api/batches.md)."""

    max_window_s: int = Field(
        2_592_000, ge=60, le=31_536_000, description="the longest completion_window that a batch may have: 30 days"
    )
    max_open: int = Field(100, ge=1, le=10_000, description="batches of one tenant that have not ended")
    max_kept: int = Field(1000, ge=1, le=100_000, description="batches of one tenant that are remembered")
    keep_s: int = Field(2_592_000, ge=3600, description="how long an ended batch is remembered: 30 days")
    max_queued: int = Field(
        2000, ge=1, le=100_000, description="lines of one batch that are jobs at once; above, lines wait in their file"
    )


class CaptureSettings(Section):
    """Prompts kept for calibration, redacted, in files of the intake (docs/calibration/sample.md)."""

    share: float = Field(0, ge=0, le=1, description="share of requests whose prompts are kept; 0: none")
    folder: str = Field("var/capture", description="where they are kept; read by `bitladder calibrate sample`")
    max_mb: int = Field(256, ge=16, description="size of the whole folder; the oldest files go first")
    keep_s: int = Field(604_800, ge=60, description="how long a prompt is kept")
    without_tenants: tuple[Name, ...] = Field((), description="tenants whose prompts are never kept")
