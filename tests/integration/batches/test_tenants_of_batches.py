"""A tenant meets its own batches alone: those of others are answered as unknown ids are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.conftest import Stack
from tests.integration.batches.test_batches import URL, jsonl, lines_of
from tests.integration.intake.test_security import bearer
from tests.integration.intake.test_security import make_authenticated as make_authenticated  # the fixture


def test_another_tenants_batch_and_its_file_are_unknown(
    make_authenticated: Callable[..., Stack], tmp_path: Path
) -> None:
    stack = make_authenticated(BITLADDER_FILES__STORE=str(tmp_path))
    own, other = bearer("acme"), bearer("globex")
    content = {"file": ("in.jsonl", jsonl(lines_of(1)))}
    file = stack.http.post("/v1/files", headers=own, files=content, data={"purpose": "batch"}).json()["id"]
    new = {"input_file_id": file, "endpoint": URL, "completion_window": "24h"}
    batch = stack.http.post("/v1/batches", headers=own, json=new).json()["id"]

    answers = [
        stack.http.get(f"/v1/batches/{batch}", headers=other),
        stack.http.get(f"/v1/batches/{batch}/results", headers=other),
        stack.http.post(f"/v1/batches/{batch}/cancel", headers=other),
        stack.http.get(f"/v1/batches?after={batch}", headers=other),
    ]
    unknown = stack.http.get("/v1/batches/batch_none", headers=own)

    assert {answer.status_code for answer in answers} == {404}
    assert {answer.text.replace(batch, "batch_none") for answer in answers} == {unknown.text}
    assert stack.http.get("/v1/batches", headers=other).json()["data"] == []
    refused = stack.http.post("/v1/batches", headers=other, json=new)
    assert (refused.status_code, json.loads(refused.text)["error"]["param"]) == (400, "input_file_id")
    assert stack.http.post("/v1/batches", headers=bearer("reader"), json=new).status_code == 403
    assert stack.http.get(f"/v1/batches/{batch}", headers=bearer("ops")).status_code == 200
    assert stack.http.post(f"/v1/batches/{batch}/cancel", headers=own).status_code == 200
