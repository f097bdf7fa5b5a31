"""Where prompts come from: a source is units in a fixed order, a unit is lines in a fixed order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from calibration.errors import SourceError
from calibration.sample.json_values import read_values
from calibration.sample.prompt import BadEntry, Prompt, read_prompts
from calibration.sample.understood import Extent
from calibration.texts.packaged import calibration_texts, heldout_texts

_SUFFIXES = (".json", ".jsonl", ".ndjson", ".json.gz", ".jsonl.gz", ".ndjson.gz")


class Unit(Protocol):
    """A file or an object."""

    name: str
    extent: Extent  # whole once its prompts were read

    def prompts(self) -> Iterator[list[Prompt | BadEntry]]:
        """Yield what each of its lines holds."""
        ...


class Source(Protocol):
    """A sequence of units in the order of their names: the name of the last one is a run's progress."""

    name: str

    def units(self, after: str) -> Iterator[Unit]:
        """Yield the units behind the one of this name; all of them behind ''.

        Raises:
            SourceError: the source is empty, unreachable, or may not be read.

        """
        ...


class _LocalFile:
    """A JSON or JSONL file, gzip or not."""

    def __init__(self, path: Path, group_field: str) -> None:
        self.name = str(path)
        self.extent = Extent()
        self._path = path
        self._group_field = group_field

    def prompts(self) -> Iterator[list[Prompt | BadEntry]]:
        try:
            with self._path.open("rb") as stream:
                for value in read_values(stream, self.extent):
                    yield [value] if isinstance(value, BadEntry) else read_prompts(value.content, self._group_field)
        except OSError as error:
            yield [BadEntry(f"cannot be read: {error.strerror or error}")]


class LocalFiles:
    """A file, or all files of a folder that look like JSON."""

    def __init__(self, path: Path, group_field: str = "") -> None:
        self.name = str(path)
        self.path = path
        self._group_field = group_field

    def units(self, after: str) -> Iterator[Unit]:
        if not self.path.exists():
            raise SourceError(f"there is no file or folder {self.name!r}")
        if not (paths := self._paths()):
            raise SourceError(f"there is no file in {self.name!r} whose name ends in {', '.join(_SUFFIXES)}")
        yield from (_LocalFile(path, self._group_field) for path in paths if str(path) > after)

    def sizes(self) -> dict[str, int]:
        """Return the bytes of each unit, by its name."""
        return {str(path): path.stat().st_size for path in self._paths()}

    def left_out(self) -> list[Path]:
        """Return the files of a folder that are not read, because their names do not say that they are JSON."""
        return [] if self.path.is_file() else [path for path in _files(self.path) if not _looks_like_json(path)]

    def _paths(self) -> list[Path]:
        return [self.path] if self.path.is_file() else [path for path in _files(self.path) if _looks_like_json(path)]


class Packaged:
    """The texts that come with bitladder: code, prose, chat and data, for when there is no traffic yet."""

    name = "packaged"

    def __init__(self) -> None:
        self.extent = Extent()

    def units(self, after: str) -> Iterator[Unit]:
        if after < self.name:
            yield self

    def prompts(self) -> Iterator[list[Prompt | BadEntry]]:
        for split, texts in (("calibration", calibration_texts()), ("heldout", heldout_texts())):
            for text in texts:
                yield [Prompt(text, split=split)]


def _files(folder: Path) -> list[Path]:
    return sorted((path for path in folder.rglob("*") if path.is_file()), key=str)


def _looks_like_json(path: Path) -> bool:
    return path.name.lower().endswith(_SUFFIXES)
