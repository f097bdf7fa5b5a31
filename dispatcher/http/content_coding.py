"""Bodies that a client has compressed (Content-Encoding), inflated no further than a body may be long."""

from __future__ import annotations

import zlib

from bitladder.errors import ContentCodingError, RequestError

# The window of each coding, as zlib numbers them.
_WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
CODINGS = tuple(_WINDOWS)


class PlainBody:
    """A body that is not compressed."""

    def inflate(self, data: bytes, room: int) -> bytes:
        """Return what some of the body stands for, at most `room` bytes of it."""
        return data[:room]

    def end(self) -> None:
        """Check that the body is whole."""


class CompressedBody:
    """A body in one of the codings above."""

    def __init__(self, coding: str) -> None:
        self._coding, self._inflater = coding, zlib.decompressobj(_WINDOWS[coding])

    def inflate(self, data: bytes, room: int) -> bytes:
        """See PlainBody. A small body may stand for a very large one: nothing is inflated beyond `room`.

        Raises:
            RequestError: it is not in its coding.

        """
        try:
            return self._inflater.decompress(data, room)
        except zlib.error as error:
            raise RequestError(f"the body must be {self._coding}, as its Content-Encoding says: {error}") from error

    def end(self) -> None:
        """See PlainBody.

        Raises:
            RequestError: it ends too early, or there is more behind its end.

        """
        if not self._inflater.eof:
            raise RequestError(f"the body must be {self._coding}, as its Content-Encoding says: it ends too early")
        if self._inflater.unused_data:
            raise RequestError(
                f"the body must be one {self._coding}, as its Content-Encoding says: there is more behind"
            )


def reader_of(content_encoding: str) -> PlainBody | CompressedBody:
    """Return what reads a body with this header.

    Raises:
        ContentCodingError: the coding is not known, or there are several.

    """
    codings = [
        coding for part in content_encoding.split(",") if (coding := part.strip().lower()) not in ("", "identity")
    ]
    if not codings:
        return PlainBody()
    if len(codings) > 1 or codings[0] not in _WINDOWS:
        known = ", ".join(CODINGS)
        raise ContentCodingError(f"Content-Encoding must be one of {known}, or none, got {content_encoding[:80]!r}")
    return CompressedBody(codings[0])
