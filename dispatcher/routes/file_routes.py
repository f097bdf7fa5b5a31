"""Routes of files."""

from __future__ import annotations

from dispatcher.auth import Requirement
from dispatcher.batch import file_handlers as files
from dispatcher.batch.file_views import DeletedFile, File, FileList, FileUpload
from dispatcher.routes.operation import BYTES, FORM, Answer, Content, Operation, answer
from dispatcher.routes.parameters import EXAMPLE_FILE_ID

_FILE = {
    "id": EXAMPLE_FILE_ID,
    "object": "file",
    "bytes": 1230,
    "created_at": 1_790_000_000,
    "expires_at": 1_792_592_000,
    "filename": "batch.jsonl",
    "purpose": "batch",
    "status": "processed",
    "status_details": None,
}
_CONTENT = Content(kinds=(), media_type=BYTES)
_CONTENT_HEADERS = ("Accept-Ranges", "Content-Disposition")

OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/files",
        requires=Requirement.SUBMIT,
        handler=files.upload_file,
        name="uploadFile",
        tag="files",
        summary="Upload the input of a batch.",
        description="The form's fields may come in any order. Of an upload that breaks, nothing is kept.",
        parameters=("IdempotencyKey",),
        body=Content(kinds=(FileUpload,), media_type=FORM),
        answers={200: answer(File, "The file.", examples={"usual": _FILE})},
        errors=("TooLarge", "ContentCoding", "Conflict", "KeyReused"),
    ),
    Operation(
        method="GET",
        path="/v1/files",
        requires=Requirement.READ,
        handler=files.list_files,
        name="listFiles",
        tag="files",
        summary="List files: those uploaded, and those that batches wrote.",
        parameters=("AfterQuery", "PageQuery", "OrderQuery", "PurposeQuery"),
        answers={200: answer(FileList, "The tenant's files.")},
    ),
    Operation(
        method="GET",
        path="/v1/files/{file_id}",
        requires=Requirement.READ,
        handler=files.get_file,
        name="getFile",
        tag="files",
        summary="Show a file.",
        answers={200: answer(File, "The file.", examples={"usual": _FILE})},
        errors=("NotFound",),
    ),
    Operation(
        method="DELETE",
        path="/v1/files/{file_id}",
        requires=Requirement.SUBMIT,
        handler=files.delete_file,
        name="deleteFile",
        tag="files",
        summary="Delete a file.",
        answers={200: answer(DeletedFile, "It is deleted.")},
        errors=("NotFound",),
    ),
    Operation(
        method="GET",
        path="/v1/files/{file_id}/content",
        requires=Requirement.READ,
        handler=files.get_content,
        name="readFile",
        tag="files",
        summary="Read a file.",
        parameters=("Range",),
        answers={
            200: Answer(description="All of it.", headers=_CONTENT_HEADERS, content=[_CONTENT]),
            206: Answer(
                description="What Range names.", headers=(*_CONTENT_HEADERS, "Content-Range"), content=[_CONTENT]
            ),
        },
        errors=("NotFound", "Range"),
    ),
)
