"""What a drift command remembers between its runs: one file, replaced as a whole with what was read and where it ends.

So whatever a killed process had read and not written is read again, and nothing is counted twice.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from calibration.artifacts.folder import replace_file, writing
from calibration.control.drift.feature_monitor import FeatureAlarm
from calibration.control.drift.loss_monitor import LossAlarm
from calibration.control.drift.stream_lines import Label
from calibration.errors import InputError

STATE = "drift-state"
STATE_OPTION = "--state"
SCHEMA = 1
_MAX_REASONS = 50


class GroupState(msgspec.Struct, kw_only=True):
    """A group's horizon: the requests before it, and the features of those in it, as 64-bit floats."""

    begins_at: int = 0
    rows: bytes = b""

    def table(self, columns: int) -> NDArray[np.float64]:
        return np.frombuffer(self.rows, dtype="<f8").reshape(-1, columns)


class FeatureState(msgspec.Struct, kw_only=True):
    """What is known of features since this reference."""

    digest: str = ""  # of the reference and the plan: with others, all begins anew
    tails: dict[str, float] = {}
    groups: dict[str, GroupState] = {}
    requests: int = 0
    moved: list[FeatureAlarm] = []  # the first of each feature, detector and group
    indices: dict[str, float] = {}  # the PSI of the last window of all requests


class LossState(msgspec.Struct, kw_only=True):
    """What is known of losses since this promise and limit."""

    digest: str = ""
    not_before: str = ""  # labels of earlier requests are of another limit
    before: int = 0  # labels that are not kept any more
    count: int = 0
    over: float = 0  # the sum of all losses
    labels: list[Label] = []
    capitals: list[float] = []  # the logarithms of those of the bets against the promise
    alarm: LossAlarm | None = None


class DriftState(msgspec.Struct, kw_only=True):
    """The file."""

    schema: int = SCHEMA
    marks: dict[str, int] = {}  # by path: the bytes that were read
    features: FeatureState = msgspec.field(default_factory=FeatureState)
    losses: LossState = msgspec.field(default_factory=LossState)
    lines: int = 0
    skipped: dict[str, int] = {}

    def skip(self, reason: str) -> None:
        known = reason if reason in self.skipped or len(self.skipped) < _MAX_REASONS else "others"
        self.skipped[known] = self.skipped.get(known, 0) + 1


def load_state(folder: Path) -> DriftState:
    """Return what is remembered; a fresh state where there is nothing.

    Raises:
        InputError: the file is damaged, or of another version.

    """
    path = folder / STATE
    try:
        state = msgspec.msgpack.decode(zlib.decompress(path.read_bytes()), type=DriftState)
    except FileNotFoundError:
        return DriftState()
    except (OSError, zlib.error, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}): move it away to begin anew") from error
    if state.schema != SCHEMA:
        raise InputError(f"{path} is of another version ({state.schema}): move it away to begin anew")
    return state


def save_state(folder: Path, state: DriftState) -> None:
    with writing(folder, STATE_OPTION):
        replace_file(folder / STATE, zlib.compress(msgspec.msgpack.encode(state), 1), mode=0o600)
