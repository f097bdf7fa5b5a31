"""The routes of files, as OpenAI's clients use them: upload, list, read and delete."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from urllib.parse import quote

import msgspec
from starlette.requests import Request as HttpRequest

from bitladder.errors import NotFoundError, RequestError
from bitladder.queue.calls.kept_files import FileRecord
from bitladder.settings.access import Caller
from dispatcher.batch.file_service import Files
from dispatcher.batch.file_views import DeletedFile, describe_file, describe_files
from dispatcher.batch.uploads import PURPOSES, Uploads
from dispatcher.http.problems import problem
from dispatcher.http.request_parts import query_count
from dispatcher.http.responses import ByteStream, Response, json_response
from dispatcher.idempotency import once
from dispatcher.state import intake_state


class _Made(msgspec.Struct):
    """What is read of the answer to the first upload with a key."""

    id: str


MAX_LISTED = 10_000
_RANGE = re.compile(r" *bytes *= *([0-9]{0,15})-([0-9]{0,15}) *", re.ASCII)
# What a list may be restricted to: what is uploaded, and what batches write.
LISTED_PURPOSES = (*PURPOSES, "batch_output")


async def upload_file(request: HttpRequest) -> Response:
    """Store the file of a form; of several with one idempotency key, the first."""
    uploads: Uploads = request.app.state.uploads
    made: list[FileRecord] = []

    async def receive() -> Response:
        made.append(await uploads.receive(request, _tenant(request)))
        return json_response(describe_file(made[0]))

    # Which upload it is shows at its end: until then, one is as good as another.
    answer = await once(request, intake_state(request), b"", receive)
    if not made:
        with contextlib.suppress(NotFoundError):  # the first one's file was deleted since
            first = await _files(request).get(_tenant(request), msgspec.json.decode(answer.body, type=_Made).id)
            await uploads.check_repeat(request, first)
    return answer


async def list_files(request: HttpRequest) -> Response:
    """List the caller's files: ?after, ?limit, ?order and ?purpose."""
    query = request.query_params
    order, purpose = query.get("order", "desc"), query.get("purpose", "")
    _one_of("order", order, ("asc", "desc"))
    if purpose:
        _one_of("purpose", purpose, LISTED_PURPOSES)
    page = await _files(request).page(
        _tenant(request),
        after=query.get("after", ""),
        limit=query_count(request, "limit", minimum=1, maximum=MAX_LISTED) or MAX_LISTED,
        is_descending=order == "desc",
        purpose=purpose,
    )
    return json_response(describe_files(page.files, has_more=page.has_more))


async def get_file(request: HttpRequest) -> Response:
    """Show a file."""
    return json_response(describe_file(await _file(request)))


async def delete_file(request: HttpRequest) -> Response:
    """Delete a file: its record first, so that nobody meets one without a content."""
    record = await _file(request)
    await _files(request).delete(record)
    return json_response(DeletedFile(id=record.id))


async def get_content(request: HttpRequest) -> Response:
    """Send a file's content, or what a Range names of it."""
    record, store = await _file(request), _files(request).store
    size = await store.size(record.key)
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(record.filename)}",
    }
    start, end = _range(request.headers.get("range", ""), size)
    if start >= size > 0:
        message = f"the range begins behind the end: the file has {size} bytes"
        return problem(416, message, "range_not_satisfiable", headers={"Content-Range": f"bytes */{size}"})
    status = 200
    if (start, end) != (0, size):
        headers["Content-Range"], status = f"bytes {start}-{end - 1}/{size}", 206
    parts = _up_to(store.stream(record.key, start), end - start)
    return ByteStream(parts, end - start, status, headers)


def _files(request: HttpRequest) -> Files:
    files: Files = request.app.state.files
    return files


def _tenant(request: HttpRequest) -> str:
    caller: Caller = request.state.caller
    return caller.tenant


async def _file(request: HttpRequest) -> FileRecord:
    return await _files(request).get(_tenant(request), request.path_params["file_id"])


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise RequestError(f"{name} must be one of {', '.join(known)}, got {value[:40]!r}", param=name)


def _range(header: str, size: int) -> tuple[int, int]:
    """Return the first byte and the one behind the last; a Range of another form is ignored, as RFC 9110 allows."""
    match = _RANGE.fullmatch(header)
    if match is None or match[1] == match[2] == "":
        return 0, size
    first, last = match.groups()
    if not first:
        return max(0, size - int(last)), size
    start, end = int(first), min(int(last) + 1, size) if last else size
    return (0, size) if start >= end and start < size else (start, end)


async def _up_to(parts: AsyncIterator[bytes], length: int) -> AsyncIterator[bytes]:
    async for part in parts:
        yield part[:length]
        length -= len(part)
        if length <= 0:
            break
