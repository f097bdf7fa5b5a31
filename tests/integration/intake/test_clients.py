"""What clients do beside what they ask: old HTTP, compressed bodies, wrong URLs."""

from __future__ import annotations

import gzip
import json
import shutil
import socket
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import redis

from bitladder.settings.intake_section import IntakeSettings
from tests.conftest import Stack

BODY: dict[str, Any] = {"model": "smollm2", "prompt": "a b c d", "max_tokens": 4}
MAX_BYTES = IntakeSettings().max_body_bytes


@pytest.fixture(scope="module")
def stack(redis_url: str) -> Iterator[Stack]:
    # Four tokens a second: heartbeats come between them.
    stack = Stack(redis_url, BITLADDER_INTAKE__HEARTBEAT_S="0.1", BITLADDER_ECHO__TOKENS_PER_S="4")
    redis.Redis.from_url(redis_url).flushall()
    stack.intake()
    stack.worker("int4")
    yield stack
    stack.stop()


def by_http_1_0(stack: Stack, path: str, body: dict[str, Any]) -> tuple[str, str]:
    """Return head and body of an answer, as they come until the connection ends."""
    sent = json.dumps(body).encode()
    with socket.create_connection(("127.0.0.1", stack.port), timeout=20) as client:
        client.sendall(b"POST %s HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s" % (path.encode(), len(sent), sent))
        read = b"".join(iter(lambda: client.recv(65536), b"")).decode()
    head, _, rest = read.partition("\r\n\r\n")
    return head.lower(), rest


def test_a_stream_reaches_a_client_of_http_1_0_without_chunks(stack: Stack) -> None:
    head, events = by_http_1_0(stack, "/v1/completions", BODY | {"stream": True})
    parts = [part for part in events.split("\n\n") if part != ": heartbeat"]

    assert head.startswith("http/1.1 200 ")
    assert "transfer-encoding" not in head
    assert "connection: close" in head
    assert events.count(": heartbeat") >= 3
    assert [json.loads(part.removeprefix("data: "))["choices"][0]["text"] for part in parts[:4]] == [
        "a",
        " b",
        " c",
        " d",
    ]  # fmt: skip
    assert parts[4:] == ["data: [DONE]", ""]


def test_an_answer_without_a_stream_reaches_a_client_of_http_1_0(stack: Stack) -> None:
    _, answer = by_http_1_0(stack, "/v1/completions", BODY)
    head, refusal = by_http_1_0(stack, "/v1/completions", BODY | {"model": "x"})

    assert json.loads(answer)["choices"][0]["text"].split() == ["a", "b", "c", "d"]
    assert head.startswith("http/1.1 404 ")
    assert json.loads(refusal)["error"]["code"] == "model_not_found"


def test_curl_reads_a_stream_by_http_1_0(stack: Stack) -> None:
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    command = ["curl", "--silent", "--http1.0", "--max-time", "20", f"{stack.url}/v1/completions", "--data-binary"]
    sent = json.dumps(BODY | {"stream": True})

    done = subprocess.run([*command, sent], capture_output=True, text=True, check=True, timeout=30)

    assert done.stdout.endswith("\n\ndata: [DONE]\n\n")


COMPRESSED: dict[str, Any] = {
    "gzip": gzip.compress,
    "X-GZIP": gzip.compress,
    "deflate": zlib.compress,
    "identity, gzip": gzip.compress,
}


@pytest.mark.parametrize("coding", COMPRESSED)
def test_a_compressed_body_is_inflated(stack: Stack, coding: str) -> None:
    content = COMPRESSED[coding](json.dumps(BODY).encode())
    headers = {"Content-Encoding": coding}

    answer = stack.http.post("/v1/completions", content=content, headers=headers)
    in_chunks = stack.http.post("/v1/jobs", content=(bytes([byte]) for byte in content), headers=headers)

    assert answer.json()["choices"][0]["text"].split() == ["a", "b", "c", "d"]
    assert in_chunks.status_code == 202


def test_one_idempotency_key_holds_for_a_body_however_it_is_compressed(stack: Stack) -> None:
    content, key = json.dumps(BODY).encode(), {"Idempotency-Key": "compressed"}

    plain = stack.http.post("/v1/jobs", content=content, headers=key)
    compressed = stack.http.post("/v1/jobs", content=gzip.compress(content), headers=key | {"Content-Encoding": "gzip"})

    assert plain.json()["id"] == compressed.json()["id"]


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zlib.compress])
def test_a_body_may_be_as_long_inflated_as_it_may_be_otherwise(stack: Stack, compress: Any) -> None:  # noqa: ANN401
    headers = {bytes: {}, gzip.compress: {"Content-Encoding": "gzip"}}.get(compress, {"Content-Encoding": "deflate"})
    bodies = [json.dumps(BODY).encode().ljust(MAX_BYTES + more) for more in (0, 1)]

    answers = [stack.http.post("/v1/jobs", content=compress(body), headers=headers) for body in bodies]

    assert [answer.status_code for answer in answers] == [202, 413]
    assert f"must be at most {MAX_BYTES} bytes ([intake].max_body_bytes)" in answers[1].json()["error"]["message"]


def test_a_bomb_is_refused_before_it_fills_the_memory(stack: Stack) -> None:
    bomb = gzip.compress(bytes(200 * MAX_BYTES), compresslevel=9)
    assert len(bomb) < MAX_BYTES
    before = _peak_mib(stack)

    answers = [stack.http.post("/v1/jobs", content=bomb, headers={"Content-Encoding": "gzip"}) for _ in range(3)]

    assert [(one.status_code, one.json()["error"]["code"]) for one in answers] == [(413, "request_too_large")] * 3
    assert _peak_mib(stack) - before < 32


def _peak_mib(stack: Stack) -> float:
    status = Path(f"/proc/{stack.processes[0].pid}/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "aws-chunked", "gzip;q=1"])
def test_a_coding_that_is_not_known_is_refused_by_its_name(stack: Stack, coding: str) -> None:
    answer = stack.http.post("/v1/jobs", content=b"x", headers={"Content-Encoding": coding})

    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_content_encoding")
    assert repr(coding) in answer.json()["error"]["message"]
    assert answer.headers["accept-encoding"] == "gzip, x-gzip, deflate"


GZIP = gzip.compress(json.dumps(BODY).encode(), mtime=0)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "ends too early"),
        (b"{}", "incorrect header check"),
        (GZIP[:-1], "ends too early"),
        (GZIP[:-8] + bytes(8), "incorrect data check"),
        (GZIP + b"x", "more behind"),
    ],
    ids=["empty", "plain", "cut off", "damaged", "two"],
)
def test_a_body_that_is_not_what_its_coding_says_is_refused(stack: Stack, content: bytes, why: str) -> None:
    answer = stack.http.post("/v1/jobs", content=content, headers={"Content-Encoding": "gzip"})

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_request"
    assert why in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/x"), ("GET", "/v1"), ("POST", "/chat/completions"), ("DELETE", "/v1/v1/chat/completions")],
)
def test_an_unknown_route_is_named_in_openai_s_words(stack: Stack, method: str, path: str) -> None:
    answer = stack.http.request(method, path)

    assert answer.status_code == 404
    assert answer.json()["error"] == {
        "message": f"Invalid URL ({method} {path})",
        "type": "invalid_request_error",
        "param": None,
        "code": "unknown_url",
    }


def test_a_method_that_a_route_does_not_take_is_refused_with_those_that_it_does(stack: Stack) -> None:
    answer = stack.http.put("/v1/jobs/x")
    error = answer.json()["error"]

    assert (answer.status_code, error["code"], error["type"]) == (405, "method_not_allowed", "invalid_request_error")
    assert error["message"] == "Invalid method for URL (PUT /v1/jobs/x): it takes DELETE, GET, HEAD"
    assert answer.headers["allow"] == "DELETE, GET, HEAD"


def test_openai_s_client_tells_an_unknown_model_from_an_unknown_route(stack: Stack) -> None:
    messages: Any = [{"role": "user", "content": "a"}]
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(openai.NotFoundError) as asked:
            client.chat.completions.create(model="gpt-x", messages=messages)
        with pytest.raises(openai.NotFoundError) as looked_up:
            client.models.retrieve("gpt-x")
        with pytest.raises(openai.NotFoundError) as elsewhere:
            client.moderations.create(input="a")

    assert (asked.value.code, asked.value.type) == ("model_not_found", "invalid_request_error")
    assert "The model `gpt-x` does not exist or you do not have access to it. There is smollm2." in str(asked.value)
    assert looked_up.value.code == "model_not_found"
    assert elsewhere.value.code == "unknown_url"
    assert "Invalid URL (POST /v1/moderations)" in str(elsewhere.value)
