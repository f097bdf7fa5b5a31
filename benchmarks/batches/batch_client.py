"""A file of requests as a batch of an intake, as a client runs it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import httpx2
import msgspec

ENDS = ("completed", "failed", "expired", "cancelled")


def batch_input(endpoint: str, bodies: Iterable[dict[str, Any]]) -> bytes:
    """Return the file of these requests."""
    lines = (
        msgspec.json.encode({"custom_id": f"c{number}", "method": "POST", "url": endpoint, "body": body})
        for number, body in enumerate(bodies)
    )
    return b"\n".join(lines)


def run_as_batch(url: str, endpoint: str, content: bytes) -> tuple[bytes, float]:
    """Upload a file and run it; return the results, and the seconds from the upload to the last byte of them.

    Raises:
        RuntimeError: not every line was answered.

    """
    with httpx2.Client(base_url=f"{url}/v1", timeout=600) as client:
        start_s = time.perf_counter()
        file = client.post("/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", content)}).json()
        new = {"input_file_id": file["id"], "endpoint": endpoint, "completion_window": "24h"}
        batch = client.post("/batches", json=new).json()
        while batch["status"] not in ENDS:
            time.sleep(0.1)
            batch = client.get(f"/batches/{batch['id']}").json()
        output = client.get(f"/files/{batch['output_file_id']}/content").content
        taken_s = time.perf_counter() - start_s
    count = content.count(b"\n") + 1
    if batch["status"] != "completed" or output.count(b"\n") != count:
        raise RuntimeError(f"{output.count(10)} of {count} results, and the batch is {batch['status']}")
    return output, taken_s
