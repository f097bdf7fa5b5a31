"""Jobs that an earlier version left in Redis are shown and served like others."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import redis

from tests.conftest import ROOT, Stack

OLD: Any = json.loads((ROOT / "tests/bitladder/records_before_decisions.json").read_bytes())
BODY = {"model": "smollm2", "prompt": "aa bb", "max_tokens": 3}


def test_jobs_from_before_decisions_are_shown_and_served(make_stack: Callable[..., Stack], store: redis.Redis) -> None:
    stack = make_stack()
    stack.intake()
    for name, record in OLD.items():
        store.hset(f"rq:job:{name}", mapping={key: value for key, value in record.items() if key != "shown"})
        job = stack.http.get(f"/v1/jobs/{name}").json()
        assert {part: job[part] for part in record["shown"]} == record["shown"], name
        assert job["policy"] is None

    waiting = stack.http.post("/v1/jobs", json=BODY).json()
    assert (waiting["policy"], waiting["features"]) == ("article@1", {"entropy": 1.5219})
    store.hset(f"rq:job:{waiting['id']}", "data", OLD["waiting, above the threshold"]["data"])
    stack.worker("int4")
    served = stack.http.get(f"/v1/jobs/{waiting['id']}", params={"wait": 20})

    assert served.json()["status"] == "finished"
    assert {part: served.json()[part] for part in ("floor", "reason", "entropy")} == OLD[
        "waiting, above the threshold"
    ]["shown"]
    assert (served.headers["x-entropy"], served.headers["x-route-reason"]) == ("4.9452", "entropy 4.95 > 4.5")
    assert "x-policy" not in served.headers
