"""Cases for the wire fuzz, drawn from a seed: valid requests, and what they become when one thing about them is odd."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterator

from tests.fuzz.wire import Case

HANDLERS = ("/v1/completions", "/v1/chat/completions", "/v1/jobs")
COMPLETION = {"model": "smollm2", "prompt": "one two three", "max_tokens": 3}
CHAT = {"model": "smollm2", "messages": [{"role": "user", "content": "one two"}], "max_tokens": 3}

# fmt: off
# JSON as text, because much of it is not JSON.
VALUES = (
    "null", "true", "false", "0", "-0", "-1", "1", "1.5", "1e400", "-1e400", "1e-400", "NaN", "Infinity", "-Infinity",
    "1e308", "-1e308", "1" * 25, "-" + "9" * 400, "9" * 5000, "0x10", "01", "+1", ".5", "1.", "1e", "-", '""', '" "',
    '"\\u0000"', '"\\ud800"', '"\\udc00\\ud800"', '"\\uD83D\\uDE00"', '"\\x"', '"\n"', '"\x7f"', "'a'",
    '"smollm2\\u0000"', '"%s"' % ("a" * 5000), '"../../etc/passwd"', '"{}"', '"\\u202e"', '"é"', "[]", "{}", "[[]]",
    "[{}]", "[null]", '[""]', "[1]", "[[1]]", '["a",1]', "[1e400]", "[%s]" % ("9" * 4400), "[true]", '{"":""}',
    '{"a":{"a":{"a":1}}}', '[{"role":"user"}]', '[{"content":5}]', '[{"content":[{"text":1}]}]', "[[[[1]]]]",
    "[" * 60 + "]" * 60, "[" * 900 + "]" * 900, "[" * 100_000 + "]" * 100_000, "[" * 100_000, '{"a":' * 100_000,
    '[{"content":[{"type":"text","text":"x"}]}]', '[{"role":null,"content":null}]', "undefined", "", "//", "{,}",
    "[1,]",
)
FIELDS = (
    "model", "prompt", "messages", "stream", "max_tokens", "max_completion_tokens", "n", "temperature", "top_p",
    "stop", "tools", "response_format", "logit_bias", "user", "seed", "stream_options", "echo", "best_of", "logprobs",
    "x",
)
ORDER_FIELDS = ("ids", "code", "queue", "older_than_s", "all", "dry_run", "x")
HEADERS = (
    "X-Priority", "X-Max-Latency-Ms", "X-Deadline-Ms", "X-Min-Tier", "X-Max-Tier", "Idempotency-Key", "X-Request-Id",
    "Last-Event-ID", "Authorization", "Content-Type", "Accept", "Content-Encoding", "Host", "Connection", "Expect",
    "Upgrade", "Transfer-Encoding", "Content-Length", "Cookie", "Range", "X-Forwarded-For", "X-HTTP-Method-Override",
    "Te", "Trailer", "Accept-Encoding", "Origin", "Referer", "X-Stainless-Read-Timeout", "\N{SNOWMAN}", "A B", "",
    "a\x00",
)
HEADER_VALUES = (
    b"", b" ", b"0", b"1", b"5", b"10", b"11", b"-1", b"+5", b"1.5", b"1e3", b"0x10", b"05", b"5 ", b" 5", b"5,5",
    b"9" * 20, b"9" * 5000, b"\xb2", b"\xbc", b"\xef\xbc\x95", b"\xd9\xa5", b"\xff\xfe", b"\xc3\xa9", b"\x00",
    b"5\x00", b"\x01\x02", b"\x7f", b"a" * 300, b"a" * 20_000, b"int4", b"INT4", b"fp8", b"int4\tfp8", b'"k"', b"''",
    b"%00", b"close", b"keep-alive", b"upgrade", b"websocket", b"h2c", b"chunked", b"identity", b"gzip",
    b"gzip, chunked", b"100-continue", b"Bearer", b"Bearer " + b"x" * 300, b"Bearer \xff", b"Basic Og==", b"1-1-1",
    b"9-9-9", b"1-1-1\n", b"[", b"[::1", b"a b", b"x:99999999", b"//", b"localhost", b"bytes=0-", b"*/*", b"a\rb",
    b"a\nb: c", b"a\r\n b",
)
IDS = (
    "%00", "a%00b", "%7B", "{job_id}", "a:b", "a%3Ab", "a%2Fb", "..%2f..", "..", ".", "%", "%zz", "%ff", "%C3%A9",
    "%ED%A0%80", "a" * 128, "a" * 129, "a" * 8000, "a%0d%0ab", "a%0ab", "*", "rq:job:x", "%25", "+", "%20", "0",
    "00000000-0000-0000-0000-000000000000", "01890000-0000-7000-8000-000000000000",
    "ffffffff-ffff-7fff-bfff-ffffffffffff",
)
QUERY_VALUES = (
    "", "0", "-1", "0.01", "1", "1e400", "nan", "inf", "-inf", "1e-400", "9" * 400, "9" * 5000, "%00", "%ff", "%",
    "1_0", "urgent", "normal", "batch", "URGENT", "/v1/completions", "/v1/chat/completions", "%2Fv1%2Fcompletions",
    "x", "%D9%A5",
)
QUERIES = ("wait", "lane", "endpoint", "limit", "code", "queue", "older_than_s", "x", "")
GETS = (
    "/v1/models", "/v1/queues", "/v1/dead-letters", "/health", "/readyz", "/metrics", "/openapi.json", "/", "/nope",
    "//", "/v1", "/v1/jobs/", "/v1/models/", "/v1/jobs//events", "/V1/JOBS",
    "/v1/./jobs", "/v1/../health", "/v1/jobs;a=b",
    "*",
)
METHODS = (
    "GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT", "get", "G\x00T", "", "A" * 9000,
)
START_LINES = (
    b"", b"\r\n", b"\n\n\n\n", b"\x00", b"\x16\x03\x01\x02\x00\x01", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET",
    b"GET /", b"GET / HTTP/0.9", b"GET / HTTP/1.0", b"GET / HTTP/2.0", b"GET / HTTP/9", b"GET / HTTP/1.1 x",
    b"GET  /  HTTP/1.1", b"GET http://[::1/ HTTP/1.1", b"GET http://x/v1/models HTTP/1.1", b"GET /\xff HTTP/1.1",
    b"GET /\xc3\xa9 HTTP/1.1", b"GET / HTTP/1.1\nHost: x\n", b"HTTP/1.1 200 OK", b"GET x HTTP/1.1", b"GET ? HTTP/1.1",
    b"GET /?%ff=%ff HTTP/1.1", b"GET /" + b"a" * 70_000 + b" HTTP/1.1", b"CONNECT x:1 HTTP/1.1", b"OPTIONS * HTTP/1.1",
    b"G" * 70_000, b"*3\r\n$4\r\nPING",
)
# fmt: on


# What was a defect once, by endpoint: always sent first.
DEFECTS = (
    ("/v1/completions", b'{"model": "smollm2", "prompt": "x", "\xff": 1}'),  # accepted, and broke the worker
    ("/v1/completions", b'{"model": "smollm2", "prompt": "x", "seed": 1e400}'),
    ("/v1/completions", b'{"model": "smollm2", "prompt": "x", "messages": 1}'),
    ("/v1/dead-letters/release", b'{"ids": ["\xff"]}'),
    ("/v1/dead-letters/drop", b'{"older_than_s": 1e308}'),
    ("/v1/dead-letters/drop", b'{"older_than_s": -1e308}'),
)


def head(method: str, path: str, headers: list[tuple[bytes, bytes]]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1".encode(errors="surrogateescape"), *(b"%s: %s" % pair for pair in headers)]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def request(
    method: str, path: str, body: bytes = b"", headers: list[tuple[bytes, bytes]] | None = None, *, length: bool = True
) -> bytes:
    """Return a whole request; `headers` come last, so they contradict the usual ones."""
    usual = [(b"Host", b"x"), (b"Connection", b"close")]
    if body and length:
        usual += [(b"Content-Type", b"application/json"), (b"Content-Length", b"%d" % len(body))]
    given = headers or []
    names = {name.lower() for name, _ in given}
    return head(method, path, [*(pair for pair in usual if pair[0].lower() not in names), *given]) + body


class Cases:
    """An endless stream of cases; the same one for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311  (it must be repeatable, not secret)
        self.jobs: list[str] = []  # ids of accepted jobs, which some cases ask about
        self._kinds: tuple[tuple[int, str, Callable[[], Case]], ...] = (
            (6, "body field", self._field),
            (4, "body bytes", self._bytes),
            (4, "header", self._header),
            (2, "job", self._job),
            (2, "query", self._query),
            (2, "path", self._path),
            (2, "order", self._order),
            (2, "framing", self._framing),
            (1, "start line", self._start_line),
            (1, "cut off", self._cut_off),
            (1, "pipeline", self._pipeline),
        )

    def __iter__(self) -> Iterator[Case]:
        yield from (Case("defect", [request("POST", endpoint, body)]) for endpoint, body in DEFECTS)
        weights = [weight for weight, _, _ in self._kinds]
        while True:
            _, kind, make = self._random.choices(self._kinds, weights)[0]
            case = make()
            case.kind = kind
            yield case

    def _pick(self, among: tuple[str, ...]) -> str:
        return self._random.choice(among)

    def _valid(self) -> tuple[str, dict[str, object]]:
        endpoint = self._pick(HANDLERS)
        body = (
            CHAT if endpoint == HANDLERS[1] or (endpoint == HANDLERS[2] and self._random.random() < 0.5) else COMPLETION
        )
        return endpoint, dict(body)

    def _field(self) -> Case:
        endpoint, body = self._valid()
        parts = [f"{json.dumps(name)}:{json.dumps(value)}" for name, value in body.items()]
        for _ in range(self._random.choice((1, 1, 1, 2, 3))):
            name, value = self._pick(FIELDS), self._pick(VALUES)
            if self._random.random() < 0.7:  # otherwise the name is there twice
                parts = [part for part in parts if not part.startswith(json.dumps(name))]
            parts.insert(self._random.randint(0, len(parts)), f"{json.dumps(name)}:{value}")
        return Case("", [request("POST", endpoint, ("{" + ",".join(parts) + "}").encode())])

    def _bytes(self) -> Case:
        endpoint, body = self._valid()
        raw, how = bytearray(json.dumps(body).encode()), self._random.randrange(9)
        headers: list[tuple[bytes, bytes]] = []
        if how < 4:
            for _ in range(self._random.randint(1, 4)):
                place = self._random.randrange(len(raw))
                raw[place : place + self._random.randint(0, 3)] = self._random.randbytes(self._random.randint(0, 3))
        elif how == 4:
            raw = raw[: self._random.randrange(len(raw))]
        elif how == 5:
            raw = bytearray(json.dumps(body).encode(self._pick(("utf-16", "utf-32", "utf-8-sig", "utf-7"))))
        elif how == 6:
            raw, headers = bytearray(gzip.compress(b"0" * 100_000)), [(b"Content-Encoding", b"gzip")]
        elif how == 7:
            raw = raw * 2
        else:
            raw = bytearray(self._random.randbytes(self._random.choice((1, 20, 2000))))
        return Case("", [request("POST", endpoint, bytes(raw), headers)])

    def _header(self) -> Case:
        endpoint, body = self._valid()
        headers = []
        for _ in range(self._random.choice((1, 1, 2, 3, 90, 120))):
            name = self._pick(HEADERS).encode()
            headers.append((name, self._random.choice(HEADER_VALUES)))
        return Case("", [request("POST", endpoint, json.dumps(body).encode(), headers)])

    def _job(self) -> Case:
        known = self.jobs and self._random.random() < 0.5
        job_id = self._random.choice(self.jobs) if known else self._pick(IDS)
        method = self._pick(("GET", "GET", "DELETE", "POST"))
        path = self._pick(("/v1/jobs/{}", "/v1/jobs/{}", "/v1/jobs/{}/events", "/v1/dead-letters/{}", "/v1/models/{}"))
        last = [(b"Last-Event-ID", self._random.choice(HEADER_VALUES))] if self._random.random() < 0.2 else []
        return Case("", [request(method, path.replace("{}", job_id), b"", last)])

    def _query(self) -> Case:
        endpoint, body = self._valid()
        pairs = (f"{self._pick(QUERIES)}={self._pick(QUERY_VALUES)}" for _ in range(self._random.randint(1, 4)))
        query = "&".join(pairs)
        if self._random.random() < 0.5:
            return Case("", [request("POST", f"{endpoint}?{query}", json.dumps(body).encode())])
        job_id = self._random.choice(self.jobs) if self.jobs else "x"
        path = self._pick(("/v1/dead-letters", f"/v1/jobs/{job_id}", "/v1/queues", "/metrics"))
        return Case("", [request("GET", f"{path}?{query}")])

    def _path(self) -> Case:
        return Case("", [request(self._pick(METHODS), self._pick(GETS), b"{}" if self._random.random() < 0.3 else b"")])

    def _order(self) -> Case:
        names = [self._pick(ORDER_FIELDS) for _ in range(self._random.randint(0, 3))]
        values = (self._pick((*VALUES, '["x"]', '["\xff"]', '"smollm2"', '"engine_fault"')) for _ in names)
        body = "{" + ",".join(f'"{name}":{value}' for name, value in zip(names, values, strict=True)) + "}"
        path = self._pick(("/v1/dead-letters/release", "/v1/dead-letters/drop"))
        return Case("", [request("POST", path, body.encode("latin-1", errors="replace"))])

    def _framing(self) -> Case:
        endpoint, body = self._valid()
        raw = json.dumps(body).encode()
        sizes = (
            b"0",
            b"1",
            b"-1",
            b"+5",
            b"0x5",
            b"5, 5",
            b"9" * 30,
            b"1048577",
            b" ",
            b"%d" % (len(raw) - 1),
            b"\xb2",
        )
        chunks = (
            *(b"%x\r\n%s\r\n0\r\n\r\n" % (len(raw), raw), b"zz\r\n%s\r\n0\r\n\r\n" % raw, b"-5\r\nabcde\r\n0\r\n\r\n"),
            *(b"%x;%s\r\n%s\r\n0\r\n\r\n" % (len(raw), b"x" * 30_000, raw), b"ffffffffffffffffff\r\n" + raw),
            *(b"%x\r\n%s0\r\n\r\n" % (len(raw), raw), b"0\r\n\r\n", b"0\r\nX-Trailer: 1\r\n\r\n", b"\r\n\r\n"),
            *(b"".join(b"1\r\n%c\r\n" % byte for byte in raw) + b"0\r\n\r\n", b"%x\r\n%s" % (len(raw) + 9, raw)),
        )
        if self._random.random() < 0.4:
            size = (b"Content-Length", self._random.choice(sizes))
            return Case("", [request("POST", endpoint, raw, [size], length=False)], closes_writing=True)
        headers = [
            (b"Transfer-Encoding", self._random.choice((b"chunked", b"chunked", b"gzip, chunked", b"x", b"chunked, x")))
        ]
        if self._random.random() < 0.2:
            headers.append((b"Content-Length", b"5"))
        content = self._random.choice(chunks)
        return Case(
            "",
            [head("POST", endpoint, [(b"Host", b"x"), (b"Connection", b"close"), *headers]), content],
            closes_writing=True,
        )

    def _start_line(self) -> Case:
        line = self._random.choice(START_LINES)
        rest = self._random.choice((b"\r\nHost: x\r\nConnection: close\r\n\r\n", b"\r\n\r\n", b"\n\n", b""))
        noise = self._random.randbytes(200) if self._random.random() < 0.1 else b""
        return Case("", [noise + line + rest], closes_writing=self._random.random() < 0.8)

    def _cut_off(self) -> Case:
        endpoint, body = self._valid()
        if self._random.random() < 0.3:
            body["stream"] = True
        raw = request("POST", endpoint, json.dumps(body).encode())
        cut = self._random.randint(1, len(raw))
        chunks = [raw[:cut]] if self._random.random() < 0.7 else [raw[start : start + 7] for start in range(0, cut, 7)]
        how = self._random.random()
        return Case("", chunks, closes_writing=how < 0.45, leaves=how > 0.55)

    def _pipeline(self) -> Case:
        requests = []
        for _ in range(self._random.randint(2, 6)):
            path = self._pick(("/v1/models", "/health", "/v1/jobs/x", "/nope"))
            requests.append(head("GET", path, [(b"Host", b"x")]))
        endpoint, body = self._valid()
        last = request("POST", endpoint, json.dumps(body).encode())
        garbage = self._random.choice((b"", b"", b"\x00garbage", b"GET"))
        return Case("", [b"".join(requests) + last + garbage], closes_writing=True)
