"""Settings of the prompts that are kept for calibration."""

from __future__ import annotations

from pydantic import Field

from bitladder.settings.base import Name, Section


class CaptureSettings(Section):
    """Prompts kept for calibration, redacted, in files of the intake (docs/calibration/sample.md)."""

    share: float = Field(0, ge=0, le=1, description="share of requests whose prompts are kept; 0: none")
    folder: str = Field("var/capture", description="where they are kept; read by `bitladder calibrate sample`")
    max_mb: int = Field(256, ge=16, description="size of the whole folder; the oldest files go first")
    keep_s: int = Field(604_800, ge=60, description="how long a prompt is kept")
    without_tenants: tuple[Name, ...] = Field((), description="tenants whose prompts are never kept")
