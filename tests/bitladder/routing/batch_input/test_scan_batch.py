"""A file of batch input is checked as a whole, with little memory."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import Callable, Iterable

import pytest

from bitladder.endpoints import Endpoint
from bitladder.routing.batch_input.line_forms import read_line
from bitladder.routing.batch_input.line_index import read_rows
from bitladder.routing.batch_input.scan_batch import MAX_ERRORS, BatchScan, Rules, Scanned

CHAT = "/v1/chat/completions"


def line(custom_id: str = "a", **changes: object) -> bytes:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **changes.pop("body", {})}  # type: ignore[dict-item]
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body, **changes}).encode()


def scan(data: bytes, *, part: int = 65_536, **rules: object) -> Scanned:
    scan = BatchScan(Rules(CHAT, lambda name: name == "m", **rules))  # type: ignore[arg-type]
    for start in range(0, len(data), part):
        scan.feed(data[start : start + part])
    return scan.end()


@pytest.mark.parametrize("part", [1, 7, 65_536])
def test_lines_are_found_whatever_ends_them(part: int) -> None:
    data = b"\xef\xbb\xbf" + line("a") + b"\r\n\n  \n" + line("b") + b"\n" + line("c")

    scanned = scan(data, part=part)

    assert scanned.errors == []
    rows = read_rows(scanned.index)
    assert [row.line for row in rows] == [1, 4, 5]
    assert [read_line(data[row.offset : row.offset + row.length]).custom_id for row in rows] == ["a", "b", "c"]


BAD: dict[str, tuple[bytes, str, str | None]] = {
    "no JSON": (b'{"custom_id": ', "invalid_json_line", None),
    "no UTF-8": (line().replace(b"Hi", b"\xff"), "invalid_json_line", None),
    "a list": (b"[1]", "invalid_request", None),
    "no custom_id": (
        b'{"method":"POST","url":"/v1/chat/completions","body":{"model":"m"}}',
        "invalid_request",
        "custom_id",
    ),
    "custom_id is a number": (line().replace(b'"a"', b"7"), "invalid_request", "custom_id"),
    "custom_id is empty": (line(""), "invalid_request", "custom_id"),
    "a wrong method": (line(method="GET"), "invalid_request", "method"),
    "another url": (line(url="/v1/embeddings"), "url_mismatch", "url"),
    "body is text": (line().replace(b'"body": {', b'"body": "x", "y": {'), "invalid_request", "body"),
    "a stream": (line(body={"stream": True}), "invalid_request", "body.stream"),
    "a response behind another": (
        line(url="/v1/responses", body={"model": "m", "previous_response_id": "resp_1"}),
        "invalid_request",
        "body.previous_response_id",
    ),
    "no model": (b'{"custom_id":"a","url":"/v1/chat/completions","body":{}}', "invalid_request", "body.model"),
    "an unknown model": (line(body={"model": "x"}), "model_not_found", "body.model"),
    "a used custom_id": (line("0"), "duplicate_custom_id", "custom_id"),
    "a long line": (line(body={"x": "x" * 3000}), "request_too_large", None),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_line_is_named_with_its_number_and_field(name: str) -> None:
    wrong, code, param = BAD[name]
    data = b"\n".join([*(line(str(number)) for number in range(16)), wrong, line("after")])

    scanned = scan(data, max_line_bytes=2000)

    assert [(error.code, error.line, error.param) for error in scanned.errors] == [(code, 17, param)]
    assert scanned.index == b""


def test_all_errors_are_counted_and_the_first_are_kept() -> None:
    scanned = scan(b"x\n" * 250)

    assert scanned.wrong == 250
    assert [error.line for error in scanned.errors] == list(range(1, MAX_ERRORS + 1))


@pytest.mark.parametrize(
    ("data", "code"),
    [(b"", "empty_batch"), (b"\n \r\n", "empty_batch"), (line() + b"\n" + line("b"), "too_many_tasks")],
)
def test_a_file_has_lines_but_not_too_many(data: bytes, code: str) -> None:
    scanned = scan(data, max_lines=1)

    assert [(error.code, error.line) for error in scanned.errors] == [(code, None)]


def chat(system: str, text: str) -> dict[str, object]:
    return {"messages": [{"role": "system", "content": system}, {"role": "user", "content": text}]}


@pytest.mark.parametrize(
    "body_of",
    [
        chat,
        lambda start, text: {"messages": [{"role": "user", "content": start * 300 + text}]},
        lambda start, text: {"messages": None, "prompt": start * 300 + text},
        lambda start, text: {"messages": None, "input": text, "instructions": start},
        lambda start, text: {"prompt_cache_key": start, "messages": [{"role": "user", "content": text}]},
    ],
)
def test_lines_that_begin_alike_run_together_and_else_in_their_order(
    body_of: Callable[[str, str], dict[str, object]],
) -> None:
    starts = ["b", "a", "b", "c", "a", "b"]
    bodies = [body_of(start, f"{number} ") for number, start in enumerate(starts)]

    scanned = scan(b"\n".join(line(str(number), body=body) for number, body in enumerate(bodies)))

    assert [row.line for row in read_rows(scanned.index)] == [1, 3, 6, 2, 5, 4]


def test_a_large_file_or_line_takes_little_memory() -> None:
    scan = BatchScan(Rules(CHAT, lambda _: True))

    tracemalloc.start()
    for _ in range(40):
        scan.feed(b"x" * 2**20)
    of_one_line = tracemalloc.get_traced_memory()[1]
    scan.feed(b"\n")
    for number in range(5_000):
        scan.feed(line(f"request-{number}") + b"\n")
    scanned = scan.end()
    of_all = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert [error.code for error in scanned.errors] == ["request_too_large"]
    assert scanned.lines == 5_001
    assert of_one_line < 8 * 2**20
    assert of_all < 5_000 * 200 + 8 * 2**20


def test_any_bytes_give_a_result_that_does_not_depend_on_how_they_arrive() -> None:
    chance = random.Random(7)  # noqa: S311
    parts: Iterable[bytes] = (line(str(number)) for number in range(30))
    data = bytearray(b"\n".join(parts))
    for _ in range(60):
        data[chance.randrange(len(data))] = chance.choice(b'\n\r{}"\xff x')

    results = {repr(scan(bytes(data), part=part)) for part in (1, 13, 4096)}

    assert len(results) == 1


def test_another_url_is_said_in_paths() -> None:
    scan = BatchScan(Rules(Endpoint.CHAT, lambda name: name == "m"))
    scan.feed(line(url="/v1/embeddings"))

    (error,) = scan.end().errors
    assert error.message == "url must be '/v1/chat/completions' on every line, got '/v1/embeddings'"
