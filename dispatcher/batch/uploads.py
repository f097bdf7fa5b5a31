"""Receive an upload: as slow as a client's line is, as large as the settings allow, and a bounded number at once.

The limits of other bodies are not those of a file: 200 MB over a slow line take minutes. A client that sends nothing,
or next to nothing, holds a place that others wait for.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Iterator

from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest

from bitladder.errors import (
    ClientGoneError,
    ConflictError,
    ContentCodingError,
    RefusedError,
    RequestError,
    SlowBodyError,
    TooLargeError,
)
from bitladder.queue.calls.kept_files import FileRecord
from dispatcher.batch.file_service import MB, Files, new_file_id
from dispatcher.batch.upload_form import Form, UploadForm
from dispatcher.state import IntakeState

# What a client must send on average, beyond a silence of intake.stall_timeout_s.
_MIN_BYTES_PER_S = 4096
# Of a form beside its file.
_FORM_BYTES = 256 * 1024
_BUSY_S = 2.0
PURPOSES = ("batch",)
KEY_HEADER = "Idempotency-Key"
MIN_KEPT_S, MAX_KEPT_S = 3600, 2_592_000


class TooManyUploadsError(RefusedError):
    """As many uploads are on their way as this intake takes at once."""

    code = "too_many_uploads"


class _Upload:
    """One upload, as it arrives."""

    def __init__(self, form: UploadForm, declared: int, limit: int, *, is_keyed: bool) -> None:
        self.declared = declared
        self._form, self._limit = form, limit
        self._hash = hashlib.sha256() if is_keyed else None  # what costs a second and is asked for by few

    @property
    def form(self) -> Form:
        return self._form.form

    @property
    def fingerprint(self) -> str:
        """What a repeat has in common with it, once all of it has arrived; '' without an idempotency key."""
        if self._hash is None:
            return ""
        whole = self._hash.copy()
        whole.update(repr((self.form.filename, sorted(self.form.fields.items()))).encode())
        return whole.hexdigest()

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield the bytes of the file.

        Raises:
            TooLargeError: it is too large.
            RequestError: it is empty, or see UploadForm.

        """
        size = 0
        async for part in self._form.parts():
            size += len(part)
            if size > self._limit:
                raise _too_large(self._limit)
            if self._hash:
                self._hash.update(part)
            yield part
        if not size:
            raise RequestError("the file is empty", param="file")


class Uploads:
    """The uploads to one intake."""

    def __init__(self, state: IntakeState, files: Files) -> None:
        self._state, self._files = state, files
        self._open = 0

    async def receive(self, request: HttpRequest, tenant: str) -> FileRecord:
        """Store the file of a form, and return its record.

        Raises:
            RequestError: the form is wrong, too large, too slow, or ends too early: nothing is kept.
            RefusedError: too many uploads are on their way.
            StoreError, QueueUnreachableError: it cannot be stored now.

        """
        with self._place():
            upload = self._upload(request)
            await self._files.check_room(tenant, upload.declared)
            file_id = new_file_id()
            key = await self._files.key_of(file_id)
            size = await self._files.store.write(key, upload.parts())
            form, now = upload.form, int(time.time())
            record = FileRecord(
                id=file_id,
                tenant=tenant,
                key=key,
                bytes=size,
                created_at=now,
                filename=form.filename,
                purpose=form.fields["purpose"],
                expires_at=now + (_kept_s(form) or self._files.settings.keep_s),
                fingerprint=upload.fingerprint,
            )
            await self._files.register(record)
        return record

    async def check_repeat(self, request: HttpRequest, first: FileRecord) -> None:
        """Read an upload whose idempotency key has a file already, and keep nothing of it.

        Raises:
            ConflictError: it is another one.
            RequestError, RefusedError: see `receive`.

        """
        with self._place():
            upload = self._upload(request)
            async for _ in upload.parts():
                pass
        if upload.fingerprint != first.fingerprint:
            raise ConflictError("the Idempotency-Key was used with another upload", param=KEY_HEADER)

    def _upload(self, request: HttpRequest) -> _Upload:
        limit = self._files.settings.max_mb * MB
        declared = _declared(request, limit)
        form = UploadForm(request.headers.get("content-type", ""), self._arriving(request, limit + _FORM_BYTES), _check)
        return _Upload(form, declared, limit, is_keyed=KEY_HEADER in request.headers)

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        maximum = self._files.settings.max_uploads
        if self._open >= maximum:
            raise TooManyUploadsError(
                f"{maximum} uploads to this intake are on their way ([files].max_uploads)", retry_after_s=_BUSY_S
            )
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    async def _arriving(self, request: HttpRequest, limit: int) -> AsyncIterator[bytes]:
        """Yield a body as it arrives, as long as enough of it does."""
        stall_s = self._state.settings.intake.stall_timeout_s
        stream, received, waited_s = request.stream(), 0, 0.0
        clock = asyncio.get_running_loop().time
        try:
            while True:
                asked_s = clock()
                limit_s = min(stall_s, stall_s + received / _MIN_BYTES_PER_S - waited_s)
                with self._state.closing.interrupts():
                    async with asyncio.timeout(limit_s):
                        data = await anext(stream)
                waited_s += clock() - asked_s
                received += len(data)
                if received > limit:
                    raise _too_large(limit - _FORM_BYTES)
                yield data
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise SlowBodyError(
                f"an upload must send something every {stall_s:g} s ([intake].stall_timeout_s), and "
                f"{_MIN_BYTES_PER_S} bytes a second on average"
            ) from None
        except ClientDisconnect:
            raise ClientGoneError("the client closed the connection") from None


def _declared(request: HttpRequest, limit: int) -> int:
    """Return how large the body says that it is, 0 where it does not.

    Raises:
        ContentCodingError: it is compressed.
        TooLargeError: it is too large; none of it is read.

    """
    coding = request.headers.get("content-encoding", "identity")
    if coding.lower() != "identity":
        raise ContentCodingError(f"an upload must have no Content-Encoding, got {coding[:80]!r}")
    length = request.headers.get("content-length", "")
    size = int(length) if length.isdigit() else 0
    if size > limit + _FORM_BYTES:
        raise _too_large(limit)
    return size


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(f"a file may have {limit} bytes at most ([files].max_mb)", param="file")


def _check(form: Form, is_whole: bool) -> None:
    """Refuse a form, as early as what is wrong has arrived."""
    purpose = form.fields.get("purpose")
    if (purpose is not None or is_whole) and purpose not in PURPOSES:
        was = "none" if purpose is None else repr(purpose[:40])
        raise RequestError(f"purpose must be {' or '.join(map(repr, PURPOSES))}, got {was}", param="purpose")
    anchor = form.fields.get("expires_after[anchor]", "created_at")
    if anchor != "created_at":
        raise RequestError(
            f"expires_after[anchor] must be 'created_at', got {anchor[:40]!r}", param="expires_after[anchor]"
        )
    _kept_s(form)


def _kept_s(form: Form) -> int | None:
    """Return how long the file is kept; None: the form does not say."""
    name = "expires_after[seconds]"
    asked = form.fields.get(name)
    if asked is None:
        return None
    seconds = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 10 else 0
    if not MIN_KEPT_S <= seconds <= MAX_KEPT_S:
        raise RequestError(f"{name} must be from {MIN_KEPT_S} to {MAX_KEPT_S}, got {asked[:40]!r}", param=name)
    return seconds
