"""Routes of batches."""

from __future__ import annotations

from dispatcher.auth import Requirement
from dispatcher.batch import batch_handlers as batches
from dispatcher.batch.batch_views import Batch, BatchList, NewBatch
from dispatcher.routes.operation import JSONL, Answer, Content, Operation, answer
from dispatcher.routes.parameters import EXAMPLE_FILE_ID

_NEW = {"input_file_id": EXAMPLE_FILE_ID, "endpoint": "/v1/chat/completions", "completion_window": "24h"}

OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/batches",
        requires=Requirement.SUBMIT,
        handler=batches.create_batch,
        name="createBatch",
        tag="batches",
        summary="Run the requests of an uploaded file in the background.",
        description="The file is checked as a whole before anything of it runs. A line that fails fails no other.",
        parameters=("IdempotencyKey",),
        body=Content(kinds=(NewBatch,), examples={"usual": _NEW}),
        answers={200: answer(Batch, "The batch.")},
        errors=("TooLarge", "ContentCoding", "KeyReused"),
    ),
    Operation(
        method="GET",
        path="/v1/batches",
        requires=Requirement.READ,
        handler=batches.list_batches,
        name="listBatches",
        tag="batches",
        summary="List batches, the latest first.",
        parameters=("AfterQuery", "BatchPageQuery"),
        answers={200: answer(BatchList, "Some batches, and whether there are more.")},
        errors=("NotFound",),
    ),
    Operation(
        method="GET",
        path="/v1/batches/{batch_id}",
        requires=Requirement.READ,
        handler=batches.get_batch,
        name="getBatch",
        tag="batches",
        summary="Show a batch.",
        answers={200: answer(Batch, "The batch.")},
        errors=("NotFound",),
    ),
    Operation(
        method="GET",
        path="/v1/batches/{batch_id}/results",
        requires=Requirement.READ,
        handler=batches.get_results,
        name="readBatchResults",
        tag="batches",
        summary="Read the results that are there.",
        description="While it runs and when it has ended: answers first, then errors, a line of JSON each.",
        answers={200: Answer(description="The results.", content=[Content(kinds=(), media_type=JSONL)])},
        errors=("NotFound",),
    ),
    Operation(
        method="POST",
        path="/v1/batches/{batch_id}/cancel",
        requires=Requirement.SUBMIT,
        handler=batches.cancel_batch,
        name="cancelBatch",
        tag="batches",
        summary="Cancel a batch.",
        description="What is done is kept. A batch whose files are being written, or that has ended, is not cancelled.",
        answers={200: answer(Batch, "The batch, which is being cancelled.")},
        errors=("NotFound", "Conflict"),
    ),
)
