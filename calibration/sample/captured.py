"""What bitladder's own intake captured ([capture]): the prompts, with the tiers that served them where it knows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from bitladder.contract import DEFAULT_PRIORITY
from bitladder.endpoints import Endpoint
from bitladder.routing.envelope import DEFAULT_LATENCY_MS, Envelope
from calibration.errors import SourceError
from calibration.sample.json_values import Value, read_values
from calibration.sample.prompt import BadEntry, Prompt, group_of
from calibration.sample.source import Unit
from calibration.sample.understood import Extent


class _Line(msgspec.Struct, frozen=True):
    """A captured prompt, or, where `served` is set, the tier that served an earlier one."""

    id: str
    prompt: str = ""
    turns: int = 1
    endpoint: str = ""
    served: str = ""
    priority: int = DEFAULT_PRIORITY
    max_latency_ms: int = DEFAULT_LATENCY_MS
    group: str = ""  # the value of the field that records are grouped by


class _Segment:
    """One file of the capture. What was served is written later than the prompt: look into its writer's next file."""

    def __init__(self, path: Path, following: Path | None, group_field: str) -> None:
        self.name = path.name
        self.extent = Extent()
        self._path = path
        self._following = following
        self._group_field = group_field

    def prompts(self) -> Iterator[list[Prompt | BadEntry]]:
        served = {
            line.id: line.served
            for path in (self._path, self._following)
            if path is not None
            for line in _lines(path, Extent(), "")
            if isinstance(line, _Line) and line.served
        }
        for line in _lines(self._path, self.extent, self._group_field):
            if isinstance(line, BadEntry):
                yield [line]
            elif not line.served:
                envelope = Envelope(priority=line.priority, max_latency_ms=line.max_latency_ms)
                is_chat = line.endpoint == Endpoint.CHAT
                yield [Prompt(line.prompt, line.turns, served.get(line.id, ""), envelope, line.group, is_chat=is_chat)]


class Capture:
    """The folder of one or several intakes."""

    def __init__(self, folder: Path, group_field: str = "") -> None:
        self.name = f"capture {folder}"
        self._folder = folder
        self._group_field = group_field

    def units(self, after: str) -> Iterator[Unit]:
        files = sorted(self._folder.glob("*.jsonl"))
        if not files:
            raise SourceError(f"nothing is captured in {str(self._folder)!r}: set capture.share, and wait for requests")
        for path in files:
            if path.name > after:
                yield _Segment(path, _following(path, files), self._group_field)


def _following(path: Path, files: list[Path]) -> Path | None:
    """Return the same writer's next file; names are a time and the writer."""
    writer = path.stem.rpartition("-")[2]
    return next((other for other in files if other > path and other.stem.rpartition("-")[2] == writer), None)


def _lines(path: Path, extent: Extent, group_field: str) -> Iterator[_Line | BadEntry]:
    try:
        with path.open("rb") as stream:
            for value in read_values(stream, extent):
                yield value if isinstance(value, BadEntry) else _read(value, group_field)
    except OSError as error:  # its time was up since it was listed
        yield BadEntry(f"cannot be read: {error.strerror or error}")


def _read(value: Value, group_field: str) -> _Line | BadEntry:
    try:
        line = msgspec.convert(value.content, _Line)
        return msgspec.structs.replace(line, group=group_of(value.content, group_field))
    except msgspec.ValidationError:
        return BadEntry("not a line of a capture")
