"""The progress of a run, so that the next run continues there.

It is compressed: on a disk that is nearly full, the set may not find room, and what was read for it still does.
"""

from __future__ import annotations

import time
import zlib
from pathlib import Path
from typing import Any

import msgspec

from calibration.artifacts.folder import replace_file
from calibration.sample.reservoir import Layer, Member, Reservoir, Stratum
from calibration.sample.understood import Understood

# All bad entries are counted; this many are listed, which is enough to see what is wrong with them.
MAX_LISTED = 1000
_SAVE_EVERY_S = 15.0
# A large state takes long to write: never more than this share of the time.
_SAVE_SHARE = 0.05


class Skipped(msgspec.Struct, frozen=True):
    """A line without a prompt."""

    where: str
    reason: str


class SampleProgress(msgspec.Struct, kw_only=True):
    """Counts, and the place in the source."""

    request: dict[str, Any]  # Any: JSON; what was asked for, so that another request starts anew
    started_at: str
    unit: str = ""  # the last one that is finished
    line: int = 0  # of the one behind it, as far as it was read
    seen: int = 0
    taken: int = 0
    cut: int = 0
    bytes: Understood = msgspec.field(default_factory=Understood)
    skipped: dict[str, int] = {}
    listed: list[Skipped] = []

    def skip(self, where: str, reason: str) -> None:
        self.skipped[reason] = self.skipped.get(reason, 0) + 1
        if len(self.listed) < MAX_LISTED:
            self.listed.append(Skipped(where, reason))


class _State(msgspec.Struct):
    progress: SampleProgress
    layers: list[tuple[Stratum, Layer]]
    members: list[Member]
    repeats: int
    near: int


class Bookmark:
    """The file of an unfinished run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next_s = time.monotonic() + _SAVE_EVERY_S

    def load(self, fresh: SampleProgress, reservoir: Reservoir) -> SampleProgress:
        """Return the progress of an earlier run of the same request, and fill the reservoir; else the fresh one."""
        try:
            state = msgspec.msgpack.decode(zlib.decompress(self._path.read_bytes()), type=_State)
        except (OSError, zlib.error, msgspec.DecodeError, UnicodeDecodeError):
            return fresh
        if state.progress.request != fresh.request:
            return fresh
        reservoir.restore(state.layers, state.members)
        reservoir.repeats, reservoir.near = state.repeats, state.near
        return state.progress

    def save_sometimes(self, progress: SampleProgress, reservoir: Reservoir) -> None:
        """Save if it is time to."""
        now_s = time.monotonic()
        if now_s < self._next_s:
            return
        self.save(progress, reservoir)
        took_s = time.monotonic() - now_s
        self._next_s = now_s + max(_SAVE_EVERY_S, took_s / _SAVE_SHARE)

    def save(self, progress: SampleProgress, reservoir: Reservoir) -> None:
        members = list(reservoir.members.values())
        state = _State(progress, list(reservoir.layers.items()), members, reservoir.repeats, reservoir.near)
        content = zlib.compress(msgspec.msgpack.encode(state), 1)
        replace_file(self._path, content, mode=0o600)  # there are prompts in it

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)
