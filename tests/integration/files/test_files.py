"""OpenAI's files on a real intake: what its library does with them, and what becomes of uploads that are wrong."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
import redis

from bitladder.settings.access import key_hash, new_key
from tests.conftest import Stack, wait_until

KEYS = {name: new_key() for name in ("acme", "globex", "reader")}
TENANTS = {"acme": "acme", "globex": "globex", "reader": "acme"}
LINES = b"".join(b'{"custom_id": "%d"}\n' % number for number in range(20_000))
BOUNDARY = "boundary"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def keys_in_toml() -> str:
    scopes = {"reader": ', scopes = ["read"]'}
    tables = [
        f'{name} = {{hash = "{key_hash(key.encode())}", tenant = "{TENANTS[name]}"{scopes.get(name, "")}}}'
        for name, key in KEYS.items()
    ]
    return f"{{{', '.join(tables)}}}"


@pytest.fixture(scope="module")
def one_stack(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(
        redis_url,
        BITLADDER_AUTH__KEYS=keys_in_toml(),
        BITLADDER_FILES__STORE=str(tmp_path_factory.mktemp("store")),
        BITLADDER_FILES__MAX_MB="1",
        BITLADDER_FILES__MAX_FILES="4",
        BITLADDER_FILES__MAX_TOTAL_MB="2",
        BITLADDER_FILES__MAX_UPLOADS="2",
        BITLADDER_INTAKE__STALL_TIMEOUT_S="0.7",
        BITLADDER_INTAKE__BODY_TIMEOUT_S="0.5",
    )
    stack.http.headers["Authorization"] = f"Bearer {KEYS['acme']}"
    stack.intake()
    yield stack
    stack.kill()


@pytest.fixture
def stack(one_stack: Stack, store: redis.Redis) -> Iterator[Stack]:
    """Return the intake that these tests share, without files."""
    del store  # it is empty
    yield one_stack
    for path in kept(one_stack):
        path.unlink()


def kept(stack: Stack) -> list[Path]:
    return [path for path in Path(stack.environment["BITLADDER_FILES__STORE"]).rglob("*") if path.is_file()]


def sdk(stack: Stack, name: str = "acme") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{stack.url}/v1", api_key=KEYS[name], max_retries=0)


def part(name: str, data: bytes, filename: str = "") -> bytes:
    also = f'; filename="{filename}"' if filename else ""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{also}\r\n\r\n'
    return head.encode() + data + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


PURPOSE, FILE = part("purpose", b"batch"), part("file", b"{}\n", "in.jsonl")


def post(stack: Stack, body: bytes | Iterator[bytes], **headers: str) -> httpx2.Response:
    return stack.http.post("/v1/files", content=body, headers=FORM | headers)


def test_openais_library_uploads_lists_reads_and_deletes_files_at_the_settings_that_ship(
    make_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    stack = make_stack(BITLADDER_FILES__STORE=str(tmp_path / "store"))
    stack.intake()
    client = openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none")
    (tmp_path / "in ä.jsonl").write_bytes(LINES)

    first = client.files.create(file=tmp_path / "in ä.jsonl", purpose="batch")
    after: Any = {"anchor": "created_at", "seconds": 3600}
    others = [client.files.create(file=(f"{n}.jsonl", b"{}"), purpose="batch", expires_after=after) for n in range(4)]
    stack.processes[0].terminate()
    stack.processes[0].wait(20)
    stack.intake()

    assert (first.object, first.bytes, first.filename) == ("file", len(LINES), "in ä.jsonl")
    assert (first.purpose, first.status) == ("batch", "processed")
    assert first.expires_at == first.created_at + 30 * 86_400
    assert others[0].expires_at == others[0].created_at + 3600
    assert client.files.retrieve(first.id) == first
    assert client.files.content(first.id).content == LINES
    ids = [first.id, *(file.id for file in others)]
    assert [file.id for file in client.files.list()] == ids[::-1]
    assert [file.id for file in client.files.list(limit=2, order="asc")] == ids  # three pages
    assert client.files.list(limit=2).has_more
    assert client.files.list(purpose="batch_output").data == []
    assert client.files.delete(first.id).deleted
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError):
            call(first.id)
    assert len(kept(stack)) == 4


def test_a_tenant_meets_its_own_files_alone_and_a_reader_changes_none(stack: Stack) -> None:
    acme, globex, reader = (sdk(stack, name) for name in ("acme", "globex", "reader"))
    file = acme.files.create(file=("in.jsonl", b"{}\n"), purpose="batch")

    for call in (globex.files.retrieve, globex.files.content, globex.files.delete):
        with pytest.raises(openai.NotFoundError, match=f"there is no file '{file.id}'"):
            call(file.id)
    assert globex.files.list().data == []
    assert reader.files.content(file.id).content == b"{}\n"
    with pytest.raises(openai.PermissionDeniedError):
        reader.files.delete(file.id)
    with pytest.raises(openai.PermissionDeniedError):
        reader.files.create(file=b"{}", purpose="batch")


@pytest.mark.parametrize("header", ["bytes=5-9", "bytes=19990-", "bytes=-4", "bytes=5-999999"])
def test_a_range_of_a_file_can_be_read(stack: Stack, header: str) -> None:
    data = LINES[:20_000]
    url = f"/v1/files/{post(stack, form(PURPOSE, part('file', data))).json()['id']}/content"
    first, _, last = header.removeprefix("bytes=").partition("-")
    start, end = (int(first), int(last or 10**9) + 1) if first else (len(data) - int(last), len(data))

    answer = stack.http.get(url, headers={"Range": header})

    assert (answer.status_code, answer.content) == (206, data[start:end])
    assert answer.headers["Content-Range"] == f"bytes {start}-{min(end, len(data)) - 1}/{len(data)}"
    assert stack.http.get(url, headers={"Range": "lines=1-2"}).content == data
    assert stack.http.get(url, headers={"Range": "bytes=20000-"}).status_code == 416


def test_a_forms_fields_may_come_in_any_order_and_a_byte_at_a_time(stack: Stack) -> None:
    data = f"\r\n--{BOUNDARY[:-1]}\r\n\n--".encode()
    body = form(part("file", data, "in.jsonl"), part("other", b"x"), PURPOSE)

    answer = post(stack, (body[place : place + 1] for place in range(len(body))))

    assert answer.status_code == 200
    assert stack.http.get(f"/v1/files/{answer.json()['id']}/content").content == data


LARGE = part("file", b"x" * (2**20 + 1))
WRONG: dict[str, tuple[bytes, dict[str, str], int, str, str | None]] = {
    "another purpose": (form(part("purpose", b"fine-tune"), FILE), {}, 400, "invalid_request", "purpose"),
    "another purpose behind the file": (form(FILE, part("purpose", b"x")), {}, 400, "invalid_request", "purpose"),
    "many fields of one name": (form(*[PURPOSE] * 21, FILE), {}, 400, "invalid_request", None),
    "no purpose": (form(FILE), {}, 400, "invalid_request", "purpose"),
    "no file": (form(PURPOSE), {}, 400, "invalid_request", "file"),
    "two files": (form(PURPOSE, FILE, FILE), {}, 400, "invalid_request", "file"),
    "an empty file": (form(PURPOSE, part("file", b"", "in.jsonl")), {}, 400, "invalid_request", "file"),
    "expires too early": (
        form(PURPOSE, FILE, part("expires_after[anchor]", b"created_at"), part("expires_after[seconds]", b"60")),
        {},
        400,
        "invalid_request",
        "expires_after[seconds]",
    ),
    "another anchor": (
        form(PURPOSE, FILE, part("expires_after[anchor]", b"last_used")),
        {},
        400,
        "invalid_request",
        "expires_after[anchor]",
    ),
    "a large field": (form(PURPOSE, FILE, part("x", b"x" * 5000)), {}, 400, "invalid_request", "x"),
    "many fields": (form(PURPOSE, FILE, *[part(str(n), b"x") for n in range(30)]), {}, 400, "invalid_request", None),
    "no end": (PURPOSE + FILE, {}, 400, "invalid_request", None),
    "no form": (b'{"purpose": "batch"}', {"Content-Type": "application/json"}, 400, "invalid_request", None),
    "no boundary": (form(PURPOSE, FILE), {"Content-Type": "multipart/form-data"}, 400, "invalid_request", None),
    "no parts": (b"x" * 100, {}, 400, "invalid_request", None),
    "compressed": (form(PURPOSE, FILE), {"Content-Encoding": "gzip"}, 415, "unsupported_content_encoding", None),
    "a large file": (form(PURPOSE, LARGE), {}, 413, "request_too_large", "file"),
}


@pytest.mark.parametrize("name", WRONG)
def test_of_a_wrong_upload_the_error_says_what_and_nothing_is_kept(stack: Stack, name: str) -> None:
    body, headers, status, code, param = WRONG[name]

    answer = post(stack, body, **headers)

    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (status, code, param)
    assert kept(stack) == []
    assert stack.http.get("/v1/files").json()["data"] == []


def test_a_file_that_is_too_large_is_refused_before_it_arrives_or_as_soon_as_it_is(stack: Stack) -> None:
    parts = iter([PURPOSE, LARGE, *[b"x" * 2**16] * 64])

    answer = post(stack, parts)

    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
    with socket.create_connection(("127.0.0.1", stack.port), timeout=10) as client:
        client.sendall(head(10 * 2**20))
        said = client.recv(65_536)
    assert b"413 " in said
    assert kept(stack) == []


def head(length: int) -> bytes:
    lines = [
        "POST /v1/files HTTP/1.1",
        "Host: x",
        f"Authorization: Bearer {KEYS['acme']}",
        f"Content-Type: {FORM['Content-Type']}",
        f"Content-Length: {length}",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def test_an_upload_that_breaks_off_leaves_nothing(stack: Stack) -> None:
    body = form(PURPOSE, part("file", LINES))
    with socket.create_connection(("127.0.0.1", stack.port), timeout=10) as client:
        client.sendall(head(len(body)) + body[:-100])
        wait_until(lambda: len(kept(stack)) == 1, "it is being written")

    wait_until(lambda: kept(stack) == [], "what was written is removed")
    assert stack.http.get("/v1/files").json()["data"] == []


def test_an_upload_to_an_intake_that_ends_is_sent_to_another_one(
    make_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    stack = make_stack(BITLADDER_FILES__STORE=str(tmp_path / "store"), BITLADDER_INTAKE__DRAIN_GRACE_S="0")
    stack.intake()
    body = form(PURPOSE, part("file", LINES))
    with socket.create_connection(("127.0.0.1", stack.port), timeout=10) as client:
        client.sendall(head(len(body)) + body[:-100])
        wait_until(lambda: len(kept(stack)) == 1, "it is being written")
        stack.processes[0].terminate()
        said = b"".join(iter(lambda: client.recv(65_536), b""))
    stack.processes[0].wait(20)

    assert b"HTTP/1.1 503 " in said
    assert b"intake_closing" in said
    assert kept(stack) == []


def test_a_slow_upload_may_take_long_and_a_silent_one_may_not(stack: Stack) -> None:
    body = form(PURPOSE, part("file", LINES[:100_000]))

    def slowly() -> Iterator[bytes]:
        for start in range(0, len(body), 20_000):
            time.sleep(0.3)  # six of these are beyond intake.body_timeout_s
            yield body[start : start + 20_000]

    with ThreadPoolExecutor(1) as pool:
        silent = pool.submit(lambda: post(stack, silently(body)))
        assert post(stack, slowly()).status_code == 200
        answer = silent.result()

    assert (answer.status_code, answer.json()["error"]["code"]) == (408, "request_timeout")
    assert len(kept(stack)) == 1


def silently(body: bytes) -> Iterator[bytes]:
    yield body[:1000]
    time.sleep(2)
    yield body[1000:]


def test_an_upload_with_an_idempotency_key_is_stored_once_and_another_one_with_it_is_refused(stack: Stack) -> None:
    upload, key = form(PURPOSE, part("file", LINES, "a")), {"Idempotency-Key": "once"}
    repeat = upload.replace(BOUNDARY.encode(), b"other")  # each try of a library has a boundary of its own

    first = post(stack, upload, **key)
    again = post(stack, repeat, **key, **{"Content-Type": "multipart/form-data; boundary=other"})
    others = [post(stack, form(PURPOSE, part("file", LINES + b"x", name)), **key) for name in ("a", "b")]

    assert first.status_code == 200
    assert (again.status_code, again.json()) == (200, first.json())
    assert [(other.status_code, other.json()["error"]["code"]) for other in others] == [
        (422, "idempotency_key_reused")
    ] * 2
    assert len(kept(stack)) == 1
    stack.http.delete(f"/v1/files/{first.json()['id']}")
    assert post(stack, upload, **key).json() == first.json()


def test_while_an_upload_with_an_idempotency_key_runs_a_repeat_is_told_so(stack: Stack) -> None:
    upload = form(PURPOSE, part("file", LINES))
    with socket.create_connection(("127.0.0.1", stack.port), timeout=10) as client:
        client.sendall(head(len(upload)).replace(b"\r\n\r\n", b"\r\nIdempotency-Key: k\r\n\r\n") + upload[:-100])
        wait_until(lambda: len(kept(stack)) == 1, "it is being written")
        answer = post(stack, upload, **{"Idempotency-Key": "k"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "idempotency_key_in_use")
    wait_until(
        lambda: post(stack, upload, **{"Idempotency-Key": "k"}).status_code == 200, "what broke off counts as not sent"
    )
    assert len(kept(stack)) == 1


def test_uploads_at_once_and_a_tenants_files_are_bounded(stack: Stack) -> None:
    body, file = form(PURPOSE, part("file", LINES[:9000])), form(PURPOSE, FILE)
    with socket.create_connection(("127.0.0.1", stack.port)) as one, socket.create_connection(one.getpeername()) as two:
        for client in (one, two):
            client.sendall(head(len(body)) + body[:5000])
        wait_until(lambda: len(kept(stack)) == 2, "two are on their way")
        busy = post(stack, file)
    mib = part("file", b"x" * (2**20 - 1000))
    wait_until(lambda: post(stack, form(PURPOSE, mib)).status_code == 200, "there is a place again")
    wait_until(lambda: len(kept(stack)) == 1, "both are over")
    answers = [post(stack, form(PURPOSE, upload)) for upload in (FILE, mib, mib, FILE, FILE)]

    assert (busy.status_code, busy.json()["error"]["code"]) == (429, "too_many_uploads")
    assert int(busy.headers["Retry-After"]) >= 1
    codes = [answer.json().get("error", {}).get("code") for answer in answers]
    assert codes == [None, None, "file_quota_exceeded", None, "file_quota_exceeded"]
    assert ["max_total_mb" in answers[2].text, "4 files" in answers[4].text] == [True, True]
    assert len(kept(stack)) == 4
    for listed in stack.http.get("/v1/files").json()["data"]:
        stack.http.delete(f"/v1/files/{listed['id']}")
    assert post(stack, file).status_code == 200
