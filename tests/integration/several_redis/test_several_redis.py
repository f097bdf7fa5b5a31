"""Two models at two Redis behind one intake: each goes on while the other's is down, and one view shows both."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from bitladder.settings.access import key_hash
from tests.conftest import ROOT, OwnValkey, Stack, free_port, wait_until
from tests.integration.operating.test_operator_commands import by_redis
from tests.integration.operating.test_settings_commands import metric

pytestmark = pytest.mark.stack

CHAT = {"model": "big", "messages": [{"role": "user", "content": "a b"}], "stream": True}
BIG = """
[models.big]
[models.big.redis]
url = "{url}"
[[models.big.tiers]]
name = "one"
price_per_hour = 2.0
"""


class Two:
    """An intake over two Valkeys, and a worker for the model of each."""

    def __init__(self, folder: Path) -> None:
        self.valkeys = [OwnValkey(folder / name) for name in ("first", "second")]
        for valkey in self.valkeys:
            valkey.start()
        config = folder / "bitladder.toml"
        text = (ROOT / "bitladder.toml").read_text(encoding="utf-8")
        config.write_text(text + BIG.format(url=self.valkeys[1].url), encoding="utf-8")
        tables = ", ".join(
            f'{name} = {{hash = "{key_hash(name.encode())}", tenant = "{name}", scopes = {json.dumps(scopes)}}}'
            for name, scopes in (("ops", ["submit", "read", "ops"]), ("acme", ["submit", "read"]))
        )
        self.stack = Stack(self.valkeys[0].url, BITLADDER_CONFIG=str(config), BITLADDER_AUTH__KEYS=f"{{{tables}}}")
        self.stack.http.headers["Authorization"] = "Bearer ops"
        self.stack.intake()
        self.stack.start("worker", "--model", "big", "--tier", "one")
        self.stack.worker("int4")
        wait_until(lambda: live(self.stack, "big") == 1, "the worker of the other model is live")

    def kill(self) -> None:
        self.stack.kill()
        for valkey in self.valkeys:
            valkey.kill()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    two = Two(tmp_path_factory.mktemp("two"))
    yield two
    two.kill()


@pytest.fixture
def stack(both: Two) -> Stack:
    return both.stack


def models(stack: Stack) -> dict[str, Any]:
    return {model["model"]: model for model in stack.http.get("/v1/queues").raise_for_status().json()["data"]}


def live(stack: Stack, model: str) -> int:
    return sum(tier["live_workers"] for tier in models(stack)[model]["tiers"])


def complete(stack: Stack, model: str) -> httpx2.Response:
    return stack.http.post("/v1/completions", json={"model": model, "prompt": "a b", "max_tokens": 2})


def submit(stack: Stack, model: str, **body: Any) -> str:  # noqa: ANN401
    answer = stack.http.post("/v1/jobs", json={"model": model, "prompt": "a b", **body})
    return str(answer.raise_for_status().json()["id"])


def test_both_models_are_served_found_listed_and_counted_as_if_they_were_at_one(stack: Stack) -> None:
    for model in ("smollm2", "big", "big:one"):
        answer = complete(stack, model)
        assert answer.status_code == 200, answer.text
    for model in ("smollm2", "big"):
        job_id = submit(stack, model, stream=True)
        view = stack.http.get(f"/v1/jobs/{job_id}", params={"wait": "10"}).json()
        assert (view["status"], view["queue"].partition(":")[0]) == ("finished", model)
        assert "[DONE]" in stack.http.get(f"/v1/jobs/{job_id}/stream").text
        assert stack.http.delete(f"/v1/jobs/{job_id}").status_code == 200
    assert stack.http.get("/v1/jobs/unknown").status_code == 404
    names = [model["id"] for model in stack.http.get("/v1/models").json()["data"]]
    assert {"smollm2", "big", "big:one"} <= set(names)
    assert len(names) == len(set(names))
    assert stack.http.get("/v1/models/big").json()["id"] == "big"
    assert set(models(stack)) == {"smollm2", "big"}
    metrics = stack.http.get("/metrics").text
    assert 'bitladder_live_workers{model="smollm2",tier="int4"} 1.0' in metrics
    assert 'bitladder_live_workers{model="big",tier="one",redis="big"} 1.0' in metrics
    broken = [submit(stack, model, prompt="echo:fault") for model in ("smollm2", "big")]
    wait_until(lambda: stack.http.get("/v1/dead-letters").json()["total"] == 2, "both are dead letters")
    assert stack.http.get(f"/v1/dead-letters/{broken[1]}").status_code == 200
    shown = by_redis(stack, "dead-letters", "list", "--json")
    assert {job["id"] for job in json.loads(shown.stdout)} == set(broken)
    dropped = stack.http.post("/v1/dead-letters/drop", json={"all": True}).json()
    assert (dropped["chosen"], set(dropped["dropped"])) == (2, set(broken))
    costs = stack.http.get("/v1/costs", params={"by": "model"}).json()
    assert {row["model"] for row in costs["data"]} >= {"big"}
    assert stack.http.get("/readyz").json()["unreachable"] == {}


def test_a_batch_runs_at_the_redis_that_its_query_names(stack: Stack) -> None:
    line = {"custom_id": "1", "method": "POST", "url": "/v1/completions", "body": {"model": "big", "prompt": "a"}}
    query = {"model": "big"}
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="ops", default_query=query) as client:
        uploaded = client.files.create(file=("a.jsonl", json.dumps(line).encode()), purpose="batch")
        batch = client.batches.create(input_file_id=uploaded.id, endpoint="/v1/completions", completion_window="24h")
        wait_until(lambda: client.batches.retrieve(batch.id).status == "completed", "the batch is completed")
        output = client.batches.retrieve(batch.id).output_file_id
        assert output
        assert json.loads(client.files.content(output).text)["response"]["status_code"] == 200
    assert stack.http.get(f"/v1/batches/{batch.id}").status_code == 404


def test_a_live_setting_of_the_other_model_reaches_its_intake_and_its_worker(stack: Stack) -> None:
    port = free_port()
    stack.environment["BITLADDER_WORKER__METRICS_PORT"] = str(port)
    stack.start("worker", "--model", "big", "--tier", "one")
    wait_until(lambda: live(stack, "big") == 2, "a worker whose slots are shown is live")
    change = {"set": {"models.big.tiers.one.slots": 3, "models.big.policy": "fixed:one"}}
    assert stack.http.patch("/v1/settings", json=change).status_code == 200

    taken = 'bitladder_live_settings_revision{redis="big"} 1.0'
    wait_until(lambda: taken in stack.http.get("/metrics").text, "the other model's part has taken it", 4)
    wait_until(lambda: metric(port, "bitladder_worker_slots") == 3, "so has its worker", 4)
    assert stack.http.post("/v1/jobs", json={"model": "big", "prompt": "a"}).json()["policy"].startswith("fixed:one")


def test_an_order_for_everything_reaches_every_redis_and_one_for_a_model_its_own(stack: Stack) -> None:
    def paused() -> list[bool]:
        return [_is_idle(stack, model) for model in ("smollm2", "big")]

    assert stack.http.post("/v1/ops/pause", json={"everything": True, "reason": "tried"}).status_code == 200
    assert paused() == [True, True]
    assert [entry["scope"] for entry in stack.http.get("/v1/ops/pauses").json()["data"]] == ["all"]
    assert stack.http.post("/v1/ops/resume", json={"everything": True}).status_code == 200
    assert paused() == [False, False]
    answer = stack.http.post("/v1/ops/pause", json={"model": "big", "tier": "one"})
    assert answer.status_code == 200, answer.text
    assert paused() == [False, True]
    assert stack.http.post("/v1/ops/resume", json={"model": "big", "tier": "one"}).status_code == 200


def test_jobs_workers_tenants_and_the_overview_are_those_of_both(stack: Stack) -> None:
    ids = [submit(stack, model) for model in ("smollm2", "big", "smollm2", "big", "big")]
    for job_id in ids:
        assert stack.http.get(f"/v1/jobs/{job_id}", params={"wait": "10"}).json()["status"] == "finished"
    pages, after = list[dict[str, Any]](), dict[str, str]()
    while not pages or pages[-1]["next_cursor"]:
        pages.append(stack.http.get("/v1/jobs", params={"limit": 2, **after}).raise_for_status().json())
        after = {"after": pages[-1]["next_cursor"]}
    rows = [row for page in pages for row in page["data"]]
    assert set(ids) <= {row["id"] for row in rows}
    assert len({row["id"] for row in rows}) == len(rows) == sum(pages[0]["counts"].values())
    assert [row["since"] for row in rows] == sorted((row["since"] for row in rows), reverse=True)
    assert pages[0]["counts"] == pages[-1]["counts"]
    listed = by_redis(stack, "jobs", "--all", "--limit", "2", "--json").stdout.splitlines()
    assert [json.loads(line)["id"] for line in listed] == [row["id"] for row in rows]
    assert {row["model"] for row in stack.http.get("/v1/jobs", params={"tier": "one"}).json()["data"]} == {"big"}


def test_workers_tenants_the_overview_and_errors_name_what_both_have(stack: Stack) -> None:
    workers = stack.http.get("/v1/workers").json()
    assert [row["model"] for row in workers["data"]] == sorted(row["model"] for row in workers["data"])
    assert {row["model"] for row in workers["data"]} == {"smollm2", "big"}
    tenants = [row["tenant"] for row in stack.http.get("/v1/tenants").json()["data"]]
    assert "ops" in tenants
    assert len(tenants) == len(set(tenants))
    for text in (stack.http.get("/v1/overview").text, _first_sample(stack)):
        assert [model["model"] for model in json.loads(text)["models"]] == ["smollm2", "big"]
    history = stack.http.get("/v1/overview/history", params={"range": "60s"}).json()
    assert [model["model"] for model in history["models"]] == ["smollm2", "big"]
    assert "big" in by_redis(stack, "top").stdout
    findings = json.loads(by_redis(stack, "doctor", "--only", "redis,worker", "--json").stdout)["findings"]
    assert sum(finding["check"] == "redis.serves" for finding in findings) == 2
    live_of = {finding["subject"]: finding["detail"] for finding in findings if finding["check"] == "worker.live"}
    assert live_of["big"].startswith("one ")
    assert not [finding for finding in findings if finding["check"] == "worker.tiers"]

    for path in ("/v1/completions", "/v1/jobs"):
        message = stack.http.post(path, json={"model": "nope", "prompt": "a"}).json()["error"]["message"]
        assert message.endswith("There is smollm2, big."), message
    message = stack.http.get("/v1/jobs", params={"model": "nope"}).json()["error"]["message"]
    assert message == "model must be one of smollm2, big, got 'nope'"


def _first_sample(stack: Stack) -> str:
    with stack.http.stream("GET", "/v1/overview/stream") as answer:
        return next(line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: "))


def _first_note(stack: Stack) -> str:
    notes = stack.http.get("/v1/overview").raise_for_status().json()["notes"]
    return str(notes[0]["text"])


def _is_idle(stack: Stack, model: str) -> bool:
    """Return whether a job still waits after a second in which it would have been served."""
    job_id = submit(stack, model)
    return bool(stack.http.get(f"/v1/jobs/{job_id}", params={"wait": "1.2"}).json()["status"] == "queued")


def test_keys_tenants_and_wrong_requests_are_answered_as_with_one_redis(stack: Stack) -> None:
    job_id = submit(stack, "big")
    nobody, acme = {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer acme"}
    body = {"model": "big", "prompt": "a"}

    assert stack.http.post("/v1/jobs", json=body, headers=nobody).status_code == 401
    assert [
        stack.http.get(path, headers=nobody).status_code for path in (f"/v1/jobs/{job_id}", "/v1/queues", "/metrics")
    ] == [401] * 3
    assert stack.http.get(f"/v1/jobs/{job_id}", headers=acme).status_code == 404
    assert stack.http.get("/v1/queues", headers=acme).status_code == 403
    zipped = {"Content-Encoding": "gzip", "Content-Type": "application/json"} | acme
    sent = stack.http.post("/v1/completions", content=gzip.compress(json.dumps(body).encode()), headers=zipped)
    assert (sent.status_code, sent.json()["model"]) == (200, "big")
    assert stack.http.post("/v1/jobs", content=b"{" + b" " * 2_000_000).status_code == 413
    assert stack.http.post("/v1/jobs", content=b"no JSON").status_code == 400
    with stack.http.stream("POST", "/v1/chat/completions", json=CHAT) as answer:
        assert answer.read().endswith(b"data: [DONE]\n\n")


def test_while_one_redis_is_down_its_model_answers_503_and_the_other_is_served(both: Two) -> None:  # the last test
    stack, valkeys = both.stack, both.valkeys
    kept = submit(stack, "big")
    assert stack.http.get(f"/v1/jobs/{kept}", params={"wait": "10"}).json()["status"] == "finished"

    valkeys[1].kill()

    wait_until(lambda: complete(stack, "big").status_code == 503, "the model without its Redis is refused")
    assert complete(stack, "smollm2").status_code == 200
    assert stack.http.get(f"/v1/jobs/{kept}").status_code == 503  # it may be there
    ready = stack.http.get("/readyz")
    assert (ready.status_code, list(ready.json()["unreachable"])) == (200, ["big"])
    assert list(stack.http.get("/v1/queues").json()["unreachable"]) == ["big"]
    assert 'model="smollm2"' in stack.http.get("/metrics").text
    for path in ("/v1/jobs", "/v1/workers", "/v1/tenants"):
        assert list(stack.http.get(path).json()["unreachable"]) == ["big"], path
    for command in ("queues", "jobs"):
        assert "without what is at the Redis of big: " in by_redis(stack, command).stderr, command
    wait_until(lambda: _first_note(stack).startswith("the Redis of big does not answer"), "the overview says it")
    assert stack.http.get("/v1/jobs", params={"model": "big"}).status_code == 503
    assert stack.http.post("/v1/ops/pause", json={"model": "big"}).status_code == 503

    valkeys[1].start()

    wait_until(lambda: complete(stack, "big").status_code == 200, "it is served again")
    wait_until(lambda: stack.http.get("/readyz").json()["unreachable"] == {}, "readiness names none")
    assert stack.http.get(f"/v1/jobs/{kept}").json()["status"] == "finished"

    valkeys[0].kill()

    wait_until(lambda: complete(stack, "smollm2").status_code == 503, "the first model is refused")
    assert complete(stack, "big").status_code == 200
    assert "smollm2" in next(iter(stack.http.get("/v1/jobs").json()["unreachable"]))
