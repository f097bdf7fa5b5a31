"""A share of a model's requests goes to its candidate, and comes back at once: real processes, real Valkey."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from openai import OpenAI

from bitladder.settings.access import key_hash, new_key
from tests.conftest import Stack, wait_until

pytestmark = pytest.mark.stack
OPS, USER = new_key(), new_key()
CONFIG = f"""
[auth.keys.ops]
hash = "{key_hash(OPS.encode())}"
tenant = "ops"
scopes = ["ops", "submit", "read"]
[auth.keys.user]
hash = "{key_hash(USER.encode())}"
tenant = "acme"
scopes = ["submit", "read"]
[models.small]
aliases = ["tiny"]
[[models.small.tiers]]
name = "int8"
[models.next]
[[models.next.tiers]]
name = "int8"
"""


@pytest.fixture
def stack(make_stack: Callable[..., Stack], tmp_path: Path) -> Stack:
    config = tmp_path / "bitladder.toml"
    config.write_text(CONFIG, encoding="utf-8")
    stack = make_stack(BITLADDER_CONFIG=str(config))
    stack.http.headers["Authorization"] = f"Bearer {OPS}"
    stack.intake()
    return stack


def live(stack: Stack, model: str) -> int:
    rows = {row["model"]: row["tiers"] for row in stack.http.get("/v1/queues").json()["data"]}
    return int(rows[model][0]["live_workers"])


def worker(stack: Stack, model: str) -> None:
    stack.start("worker", "--model", model, "--tier", "int8")
    wait_until(lambda: live(stack, model) == 1, f"a worker of {model} is live")


def set_share(stack: Stack, share: float) -> None:
    canary = {"model": "next", "share": share}
    stack.http.patch("/v1/settings", json={"set": {"models.small.canary": canary}}).raise_for_status()


def test_a_candidate_answers_while_it_lives_and_has_a_share_and_the_answer_says_so(stack: Stack) -> None:
    worker(stack, "small")
    with OpenAI(base_url=f"{stack.url}/v1", api_key=USER, max_retries=0) as client:
        completions = client.completions.with_raw_response

        def ask(model: str = "tiny", **headers: str) -> tuple[str, str | None]:
            answer = completions.create(model=model, prompt="a b", max_tokens=2, extra_headers=headers)
            return answer.parse().model, answer.headers.get("x-canary-of")

        set_share(stack, 1)
        wait_until(lambda: "bitladder_live_settings_revision 1.0" in _metrics(stack), "the share is taken", 5)
        assert ask() == ("small", None)  # nobody would answer there
        worker(stack, "next")
        wait_until(lambda: ask() == ("next", "small"), "the candidate answers", 5)
        assert ask(**{"X-Canary": "false"}) == ("small", None)
        assert ask("small:int8") == ("next", "small")
        assert client.models.retrieve("tiny").id == "tiny"
        stream = completions.create(model="small", prompt="a b", max_tokens=2, stream=True)
        assert stream.headers["x-canary-of"] == "small"
        job = stack.http.post("/v1/jobs", json={"model": "small", "prompt": "a"}, headers={"X-Canary": "true"}).json()
        explained = stack.http.get(f"/v1/jobs/{job['id']}/explain").json()
        assert (job["model"], explained["canary_of"], explained["policy"]) == (
            "next",
            "small",
            "canary:small>article@1",
        )
        route = stack.http.post("/v1/route", json={"model": "small", "prompt": "a"}, headers={"X-Canary": "true"})
        assert (route.json()["model"], route.json()["canary_of"]) == ("next", "small")

        set_share(stack, 0)
        wait_until(lambda: ask() == ("small", None), "nothing goes to the candidate", 3)

    counted = dict(re.findall(r'bitladder_canary_requests_total{end="(\w+)",model="small"} (\S+)', _metrics(stack)))
    assert float(counted["candidate"]) >= 4
    assert float(counted["no_worker"]) >= 1
    wrong = stack.http.patch("/v1/settings", json={"set": {"models.small.canary": {"model": "small", "share": 0.1}}})
    assert wrong.status_code == 400
    assert "models.small.canary.model must be another model (next)" in wrong.json()["error"]["message"]


def _metrics(stack: Stack) -> str:
    return stack.http.get("/metrics").text
