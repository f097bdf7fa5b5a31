"""Files and batches of an intake, over HTTP, in OpenAI's form."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

import httpx2

from bitladder.client import Client
from bitladder.client.answers import Job, checked, unanswered
from bitladder.errors import JobError
from bitladder.ids import in_url

# Statuses of batches that have ended.
ENDED = ("completed", "failed", "expired", "cancelled")
_CHUNK = 1 << 20


class IntakeBatches(Client):
    """The batches of one intake."""

    def upload(self, file: IO[bytes], name: str) -> Job:
        """Upload a batch's input, as it is read."""
        form = {"file": (name, file, "application/jsonl")}
        return self._call("POST", "/v1/files", data={"purpose": "batch"}, files=form)

    def delete_file(self, file_id: str) -> None:
        self._call("DELETE", f"/v1/files/{in_url(file_id)}")

    def only_model(self) -> str | None:
        """Return the one model that the intake has; None where there are several."""
        names = {str(model["root"]) for model in self._call("GET", "/v1/models")["data"]}
        return names.pop() if len(names) == 1 else None

    def create(self, **fields: Any) -> Job:  # noqa: ANN401  (those of OpenAI's)
        return self._call("POST", "/v1/batches", json=fields)

    def batch(self, batch_id: str) -> Job:
        return self._call("GET", _path(batch_id))

    def cancel_batch(self, batch_id: str) -> Job:
        return self._call("POST", f"{_path(batch_id)}/cancel")

    def batches(self, limit: int) -> Job:
        return self._call("GET", "/v1/batches", params={"limit": limit})

    def results(self, batch_id: str) -> Iterator[bytes]:
        """Yield the results that are there by now."""
        return self._streamed(f"{_path(batch_id)}/results", 0)

    def sizes(self, batch: Job) -> list[tuple[str, int]]:
        """Return the files of a batch that has ended, answers first, and how many bytes they have."""
        ids = [batch[kind] for kind in ("output_file_id", "error_file_id") if batch.get(kind)]
        return [(file_id, int(self._call("GET", f"/v1/files/{in_url(file_id)}")["bytes"])) for file_id in ids]

    def content(self, file_id: str, start: int) -> Iterator[bytes]:
        """Yield a file's bytes, from one on."""
        return self._streamed(f"/v1/files/{in_url(file_id)}/content", start)

    def _streamed(self, path: str, start: int) -> Iterator[bytes]:
        headers = {"Range": f"bytes={start}-"} if start else {}
        try:
            with self._http.stream("GET", path, headers=headers) as answer:
                if answer.status_code >= 400:
                    answer.read()
                    checked(answer)
                if start and answer.status_code != 206:
                    raise JobError(
                        "the intake does not answer with a part of a file: delete what there is of the output"
                    )
                yield from answer.iter_bytes(_CHUNK)
        except httpx2.HTTPError as error:
            raise unanswered(self._http.base_url, error) from error


def _path(batch_id: str) -> str:
    return f"/v1/batches/{in_url(batch_id)}"
