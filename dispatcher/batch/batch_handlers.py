"""Batches over HTTP: create, show, list and cancel them, and read the results that are there."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from starlette.requests import Request as HttpRequest

from bitladder.endpoints import Endpoint
from bitladder.errors import NotFoundError, RequestError
from bitladder.routing.accept import idempotency_key
from dispatcher.auth import check_may_change
from dispatcher.batch.batch_output import BatchOutput
from dispatcher.batch.batch_records import Batches, no_batch
from dispatcher.batch.batch_state import BatchRecord, Owner, Spec, Status
from dispatcher.batch.batch_views import BatchList, NewBatch, describe_batch, read_new_batch
from dispatcher.batch.file_service import Files
from dispatcher.batch.runner import BatchRunner
from dispatcher.http.problems import FINAL, problem
from dispatcher.http.request_parts import query_count, read_bytes
from dispatcher.http.responses import LineStream, Response, json_response
from dispatcher.state import IntakeState, intake_state

DEFAULT_LISTED, MAX_LISTED = 20, 100
# The endpoints whose requests a batch may have.
BATCHED = tuple(endpoint for endpoint in Endpoint if endpoint.row.method == "POST")


async def create_batch(request: HttpRequest) -> Response:
    """Create a batch from an uploaded file; its lines are checked, and run, in the background."""
    state, caller = intake_state(request), request.state.caller
    body = await read_bytes(request, state.settings.intake, state.closing)
    key, batches = idempotency_key(request.headers, caller.tenant), Batches(state.queue)
    record = await batches.repeat_of(caller.tenant, key, body)
    if record is None:  # its file may be gone by now
        hook = state.webhooks.hook(request.headers, caller)
        record = await batches.create(await _spec(request, read_new_batch(body)), key, body, hook)
    _runner(request).hurry()
    return json_response(describe_batch(record))


async def get_batch(request: HttpRequest) -> Response:
    """Show a batch."""
    return json_response(describe_batch(await _own_batch(request, intake_state(request))))


async def list_batches(request: HttpRequest) -> Response:
    """List the tenant's batches, the latest first; ?after=, ?limit= (at most 100)."""
    state = intake_state(request)
    listed = query_count(request, "limit", minimum=1, maximum=MAX_LISTED) or DEFAULT_LISTED
    after = request.query_params.get("after")
    records, has_more = await Batches(state.queue).page(request.state.caller.tenant, after, listed)
    data = [describe_batch(record) for record in records]
    ends = (data[0].id, data[-1].id) if data else (None, None)
    return json_response(BatchList(data=data, first_id=ends[0], last_id=ends[1], has_more=has_more))


async def cancel_batch(request: HttpRequest) -> Response:
    """Cancel a batch: what is done is kept, and the lines that are left are not run."""
    state = intake_state(request)
    record = await _own_batch(request, state)
    check_may_change(request, record.tenant)
    before = await Batches(state.queue).cancel(record.id)
    record = await _own_batch(request, state)
    if not before.may_be_cancelled and before is not Status.CANCELLING:
        message = f"Cannot cancel a batch with status '{before}'."
        return problem(409, message, "batch_over", param="batch_id", headers=FINAL)
    _runner(request).hurry()
    return json_response(describe_batch(record))


async def get_results(request: HttpRequest) -> Response:
    """Show the results that are there: answers first, then errors."""
    state = intake_state(request)
    record = await _own_batch(request, state)
    return LineStream(_results(_files(request), record))


async def _results(files: Files, record: BatchRecord) -> AsyncIterator[bytes]:
    if not record.status.is_end:
        output = BatchOutput(files, record)
        for kind in (0, 1):
            async for data in output.lines(record.progress.parts, kind):
                yield data
        return
    for file_id in (record.progress.output_file_id, record.progress.error_file_id):
        if file_id is None:
            continue
        with contextlib.suppress(NotFoundError):  # it has expired, or was deleted
            async for data in files.store.stream((await files.get(record.tenant, file_id)).key):
                yield data


async def _own_batch(request: HttpRequest, state: IntakeState) -> BatchRecord:
    """Return a batch that the caller may see; one of another tenant is answered like an unknown id."""
    batch_id: str = request.path_params["batch_id"]
    record = await Batches(state.queue).read(batch_id)
    if not request.state.caller.sees(record.tenant):
        raise no_batch(batch_id)
    return record


async def _spec(request: HttpRequest, new: NewBatch) -> Spec:
    """Return what a new batch is to do.

    Raises:
        RequestError: it names no endpoint that batches have, or no file of its tenant's with the purpose batch.

    """
    if new.endpoint not in BATCHED:
        raise RequestError(f"endpoint must be one of {', '.join(BATCHED)}, got {new.endpoint[:80]!r}", param="endpoint")
    caller = request.state.caller
    try:
        file = await _files(request).get(caller.tenant, new.input_file_id)
    except NotFoundError as error:
        raise RequestError(f"there is no file {new.input_file_id[:80]!r}", param="input_file_id") from error
    if file.purpose != "batch":
        raise RequestError(
            f"the input file must have been uploaded with the purpose 'batch', got {file.purpose!r}",
            param="input_file_id",
        )
    return Spec(
        owner=Owner.of(caller),
        input_file_id=file.id,
        input_key=file.key,
        endpoint=Endpoint(new.endpoint),
        completion_window=new.completion_window,
        metadata=new.metadata,
        output_kept_s=new.output_expires_after.seconds if new.output_expires_after else None,
    )


def _runner(request: HttpRequest) -> BatchRunner:
    runner: BatchRunner = request.app.state.batches
    return runner


def _files(request: HttpRequest) -> Files:
    files: Files = request.app.state.files
    return files
