"""What KEDA and the Horizontal Pod Autoscaler make of a ScaledObject and its metrics, as arithmetic.

As KEDA 2.20 (pkg/scaling/executor) and Kubernetes 1.37 (pkg/controller/podautoscaler) reckon: the greatest of all
triggers, a tolerance of a tenth, the greatest recommendation of the stabilisation window before anything is scaled in,
policies by pods in a period, and KEDA alone between none and the first.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

SYNC_S = 15.0  # the autoscaler's --horizontal-pod-autoscaler-sync-period, and pollingInterval
_TOLERANCE = 0.1


class Trigger(msgspec.Struct, frozen=True):
    """A query's threshold; a total is shared by the replicas, anything else is a figure of each."""

    is_total: bool
    threshold: float
    activation: float


class Policy(msgspec.Struct, frozen=True):
    """What a ScaledObject sets. Windows and periods in seconds, steps in pods."""

    least: int
    most: int
    cooldown_s: float
    up_step: int
    up_period_s: float
    down_step: int
    down_period_s: float
    down_window_s: float
    triggers: Mapping[str, Trigger]


def read_policy(file: Path) -> Policy:
    """Read a ScaledObject. Its cron triggers are left out."""
    spec = yaml.safe_load(file.read_text(encoding="utf-8"))["spec"]
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    (up,), (down,) = behavior["scaleUp"]["policies"], behavior["scaleDown"]["policies"]
    return Policy(
        least=spec["minReplicaCount"],
        most=spec["maxReplicaCount"],
        cooldown_s=spec.get("cooldownPeriod", 300),
        up_step=up["value"],
        up_period_s=up["periodSeconds"],
        down_step=down["value"],
        down_period_s=down["periodSeconds"],
        down_window_s=behavior["scaleDown"]["stabilizationWindowSeconds"],
        triggers={one["name"]: _trigger(one) for one in spec["triggers"] if one["type"] == "prometheus"},
    )


def _trigger(trigger: Mapping[str, Any]) -> Trigger:
    metadata = trigger["metadata"]
    return Trigger(
        is_total=trigger["metricType"] == "AverageValue",
        threshold=float(metadata["threshold"]),
        activation=float(metadata.get("activationThreshold", 0)),
    )


class Autoscaler:
    """One tier's scaler: asked every `SYNC_S`, it says how many replicas there shall be."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._active_s = 0.0
        self._recommended: deque[tuple[float, int]] = deque()
        self._changes: deque[tuple[float, int]] = deque()

    def replicas(self, now: float, metrics: Mapping[str, float], current: int, ready: int) -> int:
        """Return how many there shall be from now on, of `current` of which `ready` are."""
        policy = self._policy
        if any(metrics[name] > trigger.activation for name, trigger in policy.triggers.items()):
            self._active_s = now
            if current == 0:
                return self._changed(now, 0, 1)
        elif policy.least == 0 and now - self._active_s > policy.cooldown_s:
            return self._changed(now, current, 0)
        if current == 0:
            return 0
        wanted = max(desired(trigger, metrics[name], current, ready) for name, trigger in policy.triggers.items())
        wanted = min(max(wanted, policy.least, 1), policy.most)
        return self._changed(now, current, self._limited(now, current, self._stabilised(now, wanted, current)))

    def _stabilised(self, now: float, wanted: int, current: int) -> int:
        self._recommended.append((now, wanted))
        while self._recommended[0][0] < now - self._policy.down_window_s:
            self._recommended.popleft()
        highest = max(count for _, count in self._recommended)
        return wanted if wanted >= current else min(highest, current)

    def _limited(self, now: float, current: int, wanted: int) -> int:
        policy = self._policy
        added = sum(by for at, by in self._changes if by > 0 and at > now - policy.up_period_s)
        removed = sum(-by for at, by in self._changes if by < 0 and at > now - policy.down_period_s)
        if wanted > current:
            return min(wanted, max(current, current - added + policy.up_step))
        return max(wanted, min(current, current + removed - policy.down_step))

    def _changed(self, now: float, current: int, wanted: int) -> int:
        if wanted != current:
            self._changes.append((now, wanted - current))
        while self._changes and self._changes[0][0] < now - max(self._policy.up_period_s, self._policy.down_period_s):
            self._changes.popleft()
        return wanted


def desired(trigger: Trigger, value: float, current: int, ready: int) -> int:
    """Return how many replicas a trigger asks for."""
    ratio = value / trigger.threshold / (current if trigger.is_total else 1)
    if abs(1 - ratio) <= _TOLERANCE:
        return current
    return math.ceil(value / trigger.threshold * (1 if trigger.is_total else ready))
