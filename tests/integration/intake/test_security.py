"""Keys, scopes and tenants on a real intake: which routes each may use, and which jobs it may see."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import openai
import pytest
import redis

from bitladder.client import Client, JobError
from bitladder.settings.access import key_hash, new_key
from tests.conftest import Stack, free_port, wait_until
from tests.warm_start import BITLADDER

BODY = {"model": "smollm2", "prompt": "aa bb", "max_tokens": 3}
ANYWHERE = "0.0.0.0"  # noqa: S104  (an intake refuses to bind it)
KEYS = {name: new_key() for name in ("acme", "globex", "reader", "writer", "ops", "watcher", "few", "single")}
SETTINGS: dict[str, dict[str, Any]] = {
    "acme": {},
    "globex": {},
    "reader": {"tenant": "acme", "scopes": ["read"]},
    "writer": {"tenant": "acme", "scopes": ["submit"]},
    "ops": {"scopes": ["ops", "submit", "read"]},
    "watcher": {"scopes": ["ops"]},
    "few": {"requests_per_minute": 3},
    "single": {"max_in_flight": 1},
}


def keys_in_toml() -> str:
    """Return the settings of all keys as the environment has them."""
    tables = []
    for name, its in SETTINGS.items():
        fields = {"hash": key_hash(KEYS[name].encode()), "tenant": name} | its
        tables.append(f"{name} = {{{', '.join(f'{field} = {json.dumps(value)}' for field, value in fields.items())}}}")
    return f"{{{', '.join(tables)}}}"


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {KEYS[name]}"}


@pytest.fixture
def make_authenticated(make_stack: Callable[..., Stack]) -> Callable[..., Stack]:
    """Make a stack that asks for keys; its own client is an operator's."""

    def make(**environment: str) -> Stack:
        stack = make_stack(BITLADDER_AUTH__KEYS=keys_in_toml(), **environment)
        stack.http.headers.update(bearer("ops"))
        stack.intake()
        return stack

    return make


def anonymous(stack: Stack, method: str, path: str, **arguments: Any) -> httpx2.Response:  # noqa: ANN401
    return httpx2.request(method, stack.url + path, timeout=30, **arguments)


def test_an_intake_that_others_could_reach_does_not_start_without_keys(make_stack: Callable[..., Stack]) -> None:
    done = BITLADDER.run("bitladder.cli.main", "serve", "--host", ANYWHERE, env=make_stack().environment)

    assert done.returncode == 2
    assert "auth.keys is empty, but intake.host is '0.0.0.0'" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_route_but_health_and_readiness_needs_a_configured_key(make_authenticated: Callable[..., Stack]) -> None:
    stack = make_authenticated()
    routes = [
        ("POST", "/v1/completions"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/jobs"),
        ("GET", "/v1/jobs/x"),
    ]
    routes += [("DELETE", "/v1/jobs/x"), ("GET", "/v1/models"), ("GET", "/v1/models/smollm2"), ("GET", "/v1/queues")]

    for method, path in [*routes, ("GET", "/metrics")]:
        for headers in ({}, {"Authorization": f"Bearer {new_key()}"}):
            refused = anonymous(stack, method, path, headers=headers)
            error = refused.json()["error"]
            assert (refused.status_code, error["code"]) == (401, "invalid_api_key"), path
            assert refused.headers["www-authenticate"].startswith("Bearer")
    assert {anonymous(stack, "GET", path).status_code for path in ("/health", "/readyz")} == {200}
    client = openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        client.models.list()
    client.close()


def test_a_key_may_use_the_routes_of_its_scopes_and_no_others(make_authenticated: Callable[..., Stack]) -> None:
    stack = make_authenticated()
    job_id = stack.http.post("/v1/jobs", json=BODY, headers=bearer("writer")).json()["id"]
    routes = [
        ("submit", "POST", "/v1/jobs"),
        ("read", "GET", f"/v1/jobs/{job_id}"),
        ("ops:read", "GET", "/v1/queues"),
        ("ops:read", "GET", "/metrics"),
        ("submit", "DELETE", f"/v1/jobs/{job_id}"),
    ]

    for scope, method, path in routes:
        for name, scopes in (("reader", ["read"]), ("writer", ["submit"]), ("ops", ["submit", "read", "ops:read"])):
            body = BODY if method == "POST" else None
            answer = stack.http.request(method, path, headers=bearer(name), json=body)
            assert (answer.status_code == 403) == (scope not in scopes), (name, path)
            if answer.status_code == 403:
                error = answer.json()["error"]
                assert (error["code"], error["type"]) == ("missing_scope", "permission_error")
                assert f"'{scope}'" in error["message"]
    assert stack.http.get("/v1/models", headers=bearer("reader")).status_code == 200


def test_the_scope_ops_alone_reads_every_tenant_s_jobs_and_cancels_none(
    make_authenticated: Callable[..., Stack],
) -> None:
    stack = make_authenticated()
    watcher = bearer("watcher")
    stack.worker("int4")
    body = BODY | {"stream": True}
    job = f"/v1/jobs/{stack.http.post('/v1/jobs', json=body, headers=bearer('acme')).json()['id']}"

    shown = stack.http.get(job, params={"wait": 20}, headers=watcher)
    streamed = stack.http.get(f"{job}/events", headers=watcher)
    refused = [stack.http.delete(job, headers=watcher), stack.http.post("/v1/jobs", json=body, headers=watcher)]

    assert (shown.status_code, shown.json()["status"]) == (200, "finished")
    assert streamed.text.endswith("data: [DONE]\n\n")
    assert [(answer.status_code, answer.json()["error"]["code"]) for answer in refused] == [(403, "missing_scope")] * 2


def test_a_tenant_s_jobs_are_unknown_to_every_other_tenant(make_authenticated: Callable[..., Stack]) -> None:
    stack = make_authenticated()
    unknown = "01890000-0000-7000-8000-000000000000"
    with Client(stack.url, api_key=KEYS["acme"]) as acme, Client(stack.url, api_key=KEYS["globex"]) as globex:
        waiting = acme.submit(BODY)["id"]

        for call in (globex.result, globex.cancel, lambda job_id: globex.result(job_id, wait_s=20)):
            told = []
            for job_id in (waiting, waiting.replace(waiting[-12:], "000000000000"), unknown):
                with pytest.raises(JobError) as caught:
                    call(job_id)
                told.append((str(caught.value).replace(job_id, "<id>"), caught.value.status))
            assert told[0] == told[1] == ("there is no job '<id>'", 404)
            assert told[2][1] == 410

        assert acme.result(waiting)["status"] == "queued"
        assert stack.http.get(f"/v1/jobs/{waiting}").json()["status"] == "queued"
        stack.worker("int4")
        assert acme.wait(waiting, timeout_s=10)["status"] == "finished"
        with pytest.raises(JobError, match="there is no job"):
            globex.result(waiting)
        other = globex.submit(BODY | {"max_tokens": 50_000})["id"]
        assert stack.http.delete(f"/v1/jobs/{other}").status_code in (200, 202)


def test_an_idempotency_key_belongs_to_its_tenant(make_authenticated: Callable[..., Stack], store: redis.Redis) -> None:
    stack = make_authenticated()
    with Client(stack.url, api_key=KEYS["acme"]) as acme, Client(stack.url, api_key=KEYS["globex"]) as globex:
        first = acme.submit(BODY, idempotency_key="same")["id"]

        again = acme.submit(BODY, idempotency_key="same")["id"]
        theirs = globex.submit(BODY | {"prompt": "something else"}, idempotency_key="same")["id"]

    assert first == again != theirs
    tenants = [re.findall(r'"tenant":"(\w+)"', str(store.hget(f"rq:job:{job}", "data"))) for job in (first, theirs)]
    assert tenants == [["acme"], ["globex"]]


def test_a_key_s_rate_holds_over_all_intakes(make_authenticated: Callable[..., Stack]) -> None:
    one, other = make_authenticated(), make_authenticated()

    answers = [stack.http.get("/v1/models", headers=bearer("few")) for stack in (one, other, one, other)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[3].json()["error"]["code"] == "rate_limit_exceeded"
    assert 1 <= int(answers[3].headers["retry-after"]) <= 20
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["2", "1", "0", "0"]
    assert {answer.headers["x-ratelimit-limit-requests"] for answer in answers} == {"3"}
    assert answers[0].headers["ratelimit"] == '"requests";r=2;t=20'
    assert "x-ratelimit-limit-requests" not in one.http.get("/v1/models", headers=bearer("acme")).headers
    assert one.http.get("/v1/models", headers=bearer("acme")).status_code == 200


def test_a_key_has_at_most_its_maximum_of_requests_open(make_authenticated: Callable[..., Stack]) -> None:
    stack = make_authenticated(BITLADDER_ECHO__TOKENS_PER_S="50")
    stack.worker("int4")
    long = BODY | {"max_tokens": 5000, "stream": True}

    with stack.http.stream("POST", "/v1/completions", json=long, headers=bearer("single")) as streamed:
        lines = streamed.iter_lines()
        next(lines)
        refused = stack.http.get("/v1/models", headers=bearer("single"))
        other = stack.http.get("/v1/models", headers=bearer("acme"))

    assert (refused.status_code, refused.headers["retry-after"], other.status_code) == (429, "1", 200)
    freed = lambda: stack.http.get("/v1/models", headers=bearer("single")).status_code == 200  # noqa: E731
    wait_until(freed, "the stream that its client left is over")


def test_the_jobs_of_a_key_s_tenant_are_limited(make_authenticated: Callable[..., Stack]) -> None:
    stack = make_authenticated(BITLADDER_AUTH__KEYS__ACME__MAX_QUEUED="2")

    with ThreadPoolExecutor(4) as pool:
        posts = [pool.submit(stack.http.post, "/v1/jobs", json=BODY, headers=bearer("acme")) for _ in range(4)]
    codes = sorted(post.result().status_code for post in posts)

    assert codes == [202, 202, 429, 429]
    assert stack.http.post("/v1/jobs", json=BODY, headers=bearer("globex")).status_code == 202


def without_redis(make_stack: Callable[..., Stack], **environment: str) -> tuple[Stack, str]:
    """Return a stack whose intake looks for Redis in vain, and where it looks."""
    where = f"127.0.0.1:{free_port()}"
    stack = make_stack(BITLADDER_REDIS__URL=f"redis://{where}/0", **environment)
    stack.start("serve")

    def is_up() -> bool:
        with contextlib.suppress(httpx2.HTTPError):
            return stack.http.get("/health").status_code == 200
        return False

    wait_until(is_up, "the intake answers")
    return stack, where


def refusals(stack: Stack, headers: dict[str, str]) -> list[str]:
    requests = [
        ("GET", "/readyz", None),
        ("POST", "/v1/jobs", BODY),
        ("POST", "/v1/completions", BODY | {"stream": True}),
    ]
    answers = [anonymous(stack, method, path, json=body, headers=headers) for method, path, body in requests]
    assert {answer.status_code for answer in answers} <= {503, 401}
    return [answer.json()["error"]["message"] for answer in answers]


def test_only_an_operator_s_key_sees_hosts_behind_the_intake_in_errors(make_stack: Callable[..., Stack]) -> None:
    stack, where = without_redis(make_stack, BITLADDER_AUTH__KEYS=keys_in_toml())

    assert all(where in message for message in refusals(stack, bearer("ops")))
    for headers in ({}, bearer("acme"), {"Authorization": f"Bearer {new_key()}"}, {"X-Forwarded-For": "127.0.0.1"}):
        assert not any(where in message or "Error" in message for message in refusals(stack, headers))


@pytest.mark.parametrize(("host", "is_told"), [("127.0.0.1", True), (ANYWHERE, False)])
def test_without_keys_errors_name_hosts_on_loopback_only(
    make_stack: Callable[..., Stack], host: str, is_told: bool
) -> None:
    stack, where = without_redis(make_stack, BITLADDER_INTAKE__HOST=host, BITLADDER_AUTH__REQUIRED="false")

    assert [where in message for message in refusals(stack, {})] == [is_told] * 3


def test_an_unauthenticated_body_is_not_read(make_authenticated: Callable[..., Stack]) -> None:
    stack = make_authenticated()

    refused = anonymous(stack, "POST", "/v1/jobs", content=b"{not json")

    assert refused.status_code == 401
    assert re.fullmatch(r"req_[0-9a-f]{24}", refused.headers["x-request-id"])
