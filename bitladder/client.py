"""The Python client of the job API, blocking and asyncio. OpenAI's own client works for completions and chat.

with Client() as client:
    job = client.submit({"model": "smollm2", "prompt": "Hello"}, priority=9)
    print(client.wait(job["id"])["result"])
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Iterable, Iterator
from typing import Any, Self

import httpx2

from bitladder.errors import ConfigError
from bitladder.ids import in_url, readable

_HEADERS = {
    "priority": "X-Priority",
    "max_latency_ms": "X-Max-Latency-Ms",
    "deadline_ms": "X-Deadline-Ms",
    "min_tier": "X-Min-Tier",
    "max_tier": "X-Max-Tier",
    "idempotency_key": "Idempotency-Key",
}
# The longest single ?wait=; the intake's limit is [intake].max_wait_s.
_WAIT_S = 30.0
_TERMINAL = ("finished", "failed", "cancelled", "expired")
# A submission of which it is not known whether it was accepted is sent again with its key, after these pauses.
_PAUSES_S = (0.5, 1.0, 2.0)
# Error codes of such submissions: the intake's, and our own for a call that was sent and had no answer of an intake.
_NO_ANSWER = "no_answer"
_IN_DOUBT = ("acceptance_unknown", _NO_ANSWER)
_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)
Job = dict[str, Any]


class JobError(Exception):
    """The intake refused a call, or could not be reached: its HTTP status and error code, None without an answer."""

    def __init__(self, message: str, status: int | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Client:
    """A blocking client of one intake."""

    def __init__(
        self, url: str = "http://127.0.0.1:8000", *, api_key: str | None = None, timeout_s: float = 60
    ) -> None:
        self._http = httpx2.Client(base_url=url, timeout=timeout_s, headers=_authorization(api_key))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self._http.close()

    def submit(self, body: Job, **options: Any) -> Job:  # noqa: ANN401  (the envelope's fields)
        """Submit one OpenAI completion or chat body. Options: priority, max_latency_ms, deadline_ms, min_tier,
        max_tier, idempotency_key (made here unless given: a call whose answer is lost is repeated with it).

        Raises:
            JobError: it was refused, or it is not known whether it was: code acceptance_unknown, no_answer or timeout.

        """  # noqa: D205
        headers = _keyed(options)
        for pause_s in _PAUSES_S:
            try:
                return self._call("POST", "/v1/jobs", json=body, headers=headers)
            except JobError as error:
                if error.code not in _IN_DOUBT:
                    raise
            time.sleep(pause_s)
        return self._call("POST", "/v1/jobs", json=body, headers=headers)

    def submit_many(self, bodies: Iterable[Job], **options: Any) -> list[Job]:  # noqa: ANN401
        """Submit bodies one after the other; producers beside Redis use bitladder.producer instead."""
        return [self.submit(body, **options) for body in bodies]

    def result(self, job_id: str, *, wait_s: float = 0) -> Job:
        """Return a job as it is now, or as it is after waiting up to `wait_s`."""
        return self._call("GET", f"/v1/jobs/{in_url(job_id)}", params={"wait": wait_s} if wait_s else None)

    def wait(self, job_id: str, *, timeout_s: float = 600) -> Job:
        """Return a job when it has ended.

        Raises:
            JobError: it has not ended in time.

        """
        end = time.monotonic() + timeout_s
        while (left := end - time.monotonic()) > 0:
            job = self.result(job_id, wait_s=min(_WAIT_S, left))
            if job["status"] in _TERMINAL:
                return job
        raise JobError(f"job {readable(job_id)} has not ended after {timeout_s:g} s")

    def cancel(self, job_id: str) -> Job:
        """Cancel a job."""
        return self._call("DELETE", f"/v1/jobs/{in_url(job_id)}")

    def stream(self, body: Job, **options: Any) -> Iterator[str]:  # noqa: ANN401
        """Yield the text of one completion or chat answer as it comes."""
        path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
        try:
            with self._http.stream(
                "POST", path, json=body | {"stream": True}, headers=envelope_headers(options)
            ) as answer:
                if answer.status_code != 200:
                    answer.read()
                    _checked(answer)
                for line in answer.iter_lines():
                    if line.startswith("data: ") and line != "data: [DONE]":
                        yield _chunk(json.loads(line[6:]))
        except httpx2.HTTPError as error:
            raise _unanswered(self._http.base_url, error) from error

    def _call(self, method: str, path: str, **arguments: Any) -> Job:  # noqa: ANN401  (httpx2's own)
        try:
            return _checked(self._http.request(method, path, **arguments))
        except httpx2.HTTPError as error:
            raise _unanswered(self._http.base_url, error) from error


class AsyncClient:
    """The same for asyncio."""

    def __init__(
        self, url: str = "http://127.0.0.1:8000", *, api_key: str | None = None, timeout_s: float = 60
    ) -> None:
        self._http = httpx2.AsyncClient(base_url=url, timeout=timeout_s, headers=_authorization(api_key))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *details: object) -> None:
        await self._http.aclose()

    async def submit(self, body: Job, **options: Any) -> Job:  # noqa: ANN401
        """See Client.submit."""
        headers = _keyed(options)
        for pause_s in _PAUSES_S:
            try:
                return await self._call("POST", "/v1/jobs", json=body, headers=headers)
            except JobError as error:
                if error.code not in _IN_DOUBT:
                    raise
            await asyncio.sleep(pause_s)
        return await self._call("POST", "/v1/jobs", json=body, headers=headers)

    async def result(self, job_id: str, *, wait_s: float = 0) -> Job:
        """See Client.result."""
        return await self._call("GET", f"/v1/jobs/{in_url(job_id)}", params={"wait": wait_s} if wait_s else None)

    async def wait(self, job_id: str, *, timeout_s: float = 600) -> Job:
        """See Client.wait."""
        end = time.monotonic() + timeout_s
        while (left := end - time.monotonic()) > 0:
            job = await self.result(job_id, wait_s=min(_WAIT_S, left))
            if job["status"] in _TERMINAL:
                return job
        raise JobError(f"job {readable(job_id)} has not ended after {timeout_s:g} s")

    async def cancel(self, job_id: str) -> Job:
        """See Client.cancel."""
        return await self._call("DELETE", f"/v1/jobs/{in_url(job_id)}")

    async def _call(self, method: str, path: str, **arguments: Any) -> Job:  # noqa: ANN401
        try:
            return _checked(await self._http.request(method, path, **arguments))
        except httpx2.HTTPError as error:
            raise _unanswered(self._http.base_url, error) from error


def envelope_headers(options: dict[str, Any]) -> dict[str, str]:
    """Return the headers of an envelope; unknown options are an error, None means not given."""
    if unknown := set(options) - set(_HEADERS):
        raise TypeError(f"unknown options {', '.join(sorted(unknown))}: expected {', '.join(_HEADERS)}")
    return {_HEADERS[name]: str(value) for name, value in options.items() if value is not None}


def _keyed(options: dict[str, Any]) -> dict[str, str]:
    """Return the headers of a submission, with a key to repeat it with."""
    headers = envelope_headers(options)
    return {_HEADERS["idempotency_key"]: secrets.token_hex(16)} | headers


def _unanswered(url: httpx2.URL, error: httpx2.HTTPError) -> JobError:
    code = None if isinstance(error, _NOT_SENT) else _NO_ANSWER
    if isinstance(error, httpx2.TimeoutException) and code:
        code = "timeout"  # a caller that has waited so long does not wait again
    shown = f"{url.scheme}://{url.netloc.decode()}{url.path}"  # without the user and the password of a proxy
    return JobError(f"cannot reach the intake at {shown}: {error or type(error).__name__}", code=code)


def _authorization(api_key: str | None) -> dict[str, str]:
    if not api_key:
        return {}
    if not (api_key.isascii() and api_key.isprintable()):
        raise ConfigError("the API key must be printable ASCII, as `bitladder keys new` shows it")  # without its value
    return {"Authorization": f"Bearer {api_key}"}


def _checked(answer: httpx2.Response) -> Job:
    try:
        content: Job = answer.json()
    except ValueError:  # a proxy's own page
        code = _NO_ANSWER if answer.status_code >= 500 else None
        raise JobError(f"no answer of an intake: {answer.text[:200]!r}", answer.status_code, code) from None
    if answer.status_code >= 400:
        error = content.get("error") or {}
        raise JobError(str(error.get("message", answer.text)), answer.status_code, error.get("code"))
    return content


def _chunk(chunk: Job) -> str:
    if "error" in chunk:
        raise JobError(str(chunk["error"].get("message")))
    choice = (chunk.get("choices") or [{}])[0]
    return str(choice.get("text") or (choice.get("delta") or {}).get("content") or "")
