"""ladder.toml on disk: written beside and renamed, the one before kept for rollback. A crash leaves the old one.

Order of a publication: keep a copy of the present file, write the new one beside and sync it, rename it. Each step is
one atomic change of the folder, so that readers find either the old release or the new one, whole.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tomli_w

from bitladder.errors import ConfigError
from bitladder.settings.release import Release, read_release, release_checksum
from calibration.artifacts.folder import is_full, locked, replace_file
from calibration.errors import DiskFullError, InputError

_HEADER = "# Written by `bitladder calibrate publish` or `rollback`; changed by hand it is refused.\n"
_KEPT = re.compile(r"ladder-(\d{6,})\.toml")


class ReleaseStore:
    """The present release and those before it."""

    def __init__(self, file: Path, keep: int) -> None:
        self.file, self._keep = file, keep
        self.history = file.parent / f".{file.name}.history"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only publisher; another one is waited for.

        Raises:
            InputError: the folder cannot hold a release.

        """
        with contextlib.ExitStack() as stack:
            with self._errors_named():
                stack.enter_context(locked(self.file.parent, self.file.name, lambda: None))
            yield

    def present(self) -> Release | None:
        """Return the release that is served.

        Raises:
            InputError: the file is no release.

        """
        try:
            return read_release(self.file)
        except ConfigError as error:
            raise InputError(f"{error}; move it away, or put one of {self.history} in its place") from error

    def former(self) -> dict[int, Release]:
        """Return the kept releases by version, the present one left out; one that cannot be read is not there."""
        present = self.present()
        releases = {}
        for version, path in self._kept().items():
            if present is None or version != present.version:
                with contextlib.suppress(ConfigError):
                    release = read_release(path)
                    if release and release.version == version:
                        releases[version] = release
        return dict(sorted(releases.items()))

    def next_version(self) -> int:
        present = self.present()
        return max([0, *self._kept(), *([present.version] if present else [])]) + 1

    def write(self, release: Release) -> None:
        """Make this the present release; the caller holds the lock.

        Raises:
            DiskFullError: there is no room; the old release is untouched.
            InputError: it cannot be written, or could not be read back; the old release is untouched.

        """
        content = _HEADER.encode() + tomli_w.dumps(_plain(release)).encode()
        with self._errors_named():
            self._keep_present()
            replace_file(self.file, content, check=_check_readable)
        # It is published: what fails from here on does not take it back.
        with contextlib.suppress(OSError):
            _sync_folder(self.file.parent)
            self._drop_oldest()

    @contextlib.contextmanager
    def _errors_named(self) -> Iterator[None]:
        """Name what is wrong with the file or its folder."""
        try:
            yield
        except OSError as error:
            if is_full(error):
                raise DiskFullError(f"the disk of {self.file} is full; the release is the one before") from error
            reason = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
            raise InputError(
                f"publish.file: {str(self.file)!r} cannot be written ({reason}); nothing changed"
            ) from error

    def _keep_present(self) -> None:
        present = self.present()
        if present is None:
            return
        self.history.mkdir(exist_ok=True)
        replace_file(self.history / f"ladder-{present.version:06}.toml", self.file.read_bytes())
        _sync_folder(self.history)

    def _kept(self) -> dict[int, Path]:
        matches = [(_KEPT.fullmatch(path.name), path) for path in self.history.glob("*.toml")]
        return dict(sorted((int(match[1]), path) for match, path in matches if match))

    def _drop_oldest(self) -> None:
        kept = list(self._kept().values())
        for path in kept[: max(0, len(kept) - self._keep)]:
            path.unlink(missing_ok=True)


def _plain(release: Release) -> dict[str, Any]:
    fields: dict[str, Any] = release.model_dump(exclude_none=True, exclude_defaults=True, exclude={"checksum"})
    return fields | {"checksum": release_checksum(fields)}


def _check_readable(path: Path) -> None:
    try:
        read_release(path)
    except ConfigError as error:
        raise InputError(f"no process could read what was to be published, nothing changed: {error}") from error


def _sync_folder(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
