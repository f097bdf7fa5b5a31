"""One intake process over several Redis: each has an app of its own, and a request goes to the app of its model.

A job's id says nothing of its model, so each Redis is asked for it, all at once. What operators list is merged of all
apps. Everything else (files, batches, endpoints of webhooks, conversations) is at the first Redis.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Sequence
from functools import partial
from urllib.parse import parse_qs

import msgspec
from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.types import Message, Receive, Scope, Send

from bitladder.errors import BitladderError
from bitladder.ids import from_url
from bitladder.overview.several import sample_of_all
from bitladder.queue.json_views.merging import (
    Answer,
    merged,
    merged_costs,
    merged_history,
    merged_tenants,
    merged_workers,
)
from dispatcher.http.closing import Closing
from dispatcher.http.request_parts import read_bytes
from dispatcher.http.responses import Response, json_response
from dispatcher.overview.sampler import OverviewSampler
from dispatcher.routes import inference_routes
from dispatcher.several.merged_metrics import merged_metrics
from dispatcher.state import IntakeState

# Their bodies name a model.
_BY_BODY = frozenset(
    (
        *(operation.path for operation in inference_routes.OPERATIONS if operation.method == "POST"),
        *("/v1/jobs", "/v1/route", "/v1/responses", "/v1/responses/compact", "/v1/responses/input_tokens"),
    )
)
_BY_ID = re.compile(rb"/v1/(?:jobs|responses|dead-letters)/([^/?]+)")
_MERGED = frozenset(
    (
        *(
            ("GET", f"/v1/{name}")
            for name in ("models", "queues", "dead-letters", "costs", "overview/history", "workers", "tenants")
        ),
        *(("POST", f"/v1/dead-letters/{word}") for word in ("release", "drop")),
    )
)

_MERGES = {
    "/v1/costs": merged_costs,
    "/v1/tenants": merged_tenants,
    "/v1/workers": merged_workers,
    "/v1/overview/history": merged_history,
}
# Any app answers them for all Redis, whichever are down.
_OF_ANY = frozenset(("/v1/jobs", "/v1/overview", "/v1/overview/stream"))


class _Named(msgspec.Struct):
    """What is read of a body here."""

    model: str = ""


class _Answered(msgspec.Struct):
    """An app's whole answer."""

    status: int = 0
    headers: list[tuple[bytes, bytes]] = []
    body: bytes = b""

    async def take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], list(message.get("headers", []))
        else:
            self.body += message.get("body", b"")

    def json(self) -> Answer:
        answer: Answer = msgspec.json.decode(self.body)
        return answer


class Front:
    """The ASGI application before the apps, of which the first one is that of all that belongs to no model."""

    def __init__(self, apps: Sequence[Starlette], closing: Closing) -> None:
        self._apps, self._closing = apps, closing
        self._lifespan = Starlette(lifespan=self._all_started)

    @contextlib.asynccontextmanager
    async def _all_started(self, app: Starlette) -> AsyncIterator[None]:
        del app
        async with contextlib.AsyncExitStack() as stack:
            for inner in self._apps:
                await stack.enter_async_context(inner.router.lifespan_context(inner))
            queues = {name: state.queue for name, state in zip(self._names, self._states(), strict=True)}
            takes = {name: state.overview.take for name, state in zip(self._names, self._states(), strict=True)}
            sampler = OverviewSampler(partial(sample_of_all, takes), max_age_s=0)  # each part's sample has its age
            stack.push_async_callback(sampler.aclose)
            for state in self._states():
                state.queues, state.overview_of_all = queues, sampler
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._lifespan(scope, receive, send)
            return
        path = self._path(scope)
        if _is_of_all(scope["method"], path) and not _model_of_query(scope):
            await (await self._merge(scope, path, receive))(scope, receive, send)
            return
        app, receive = await self._choose(scope, path, receive)
        await app(scope, receive, send)

    def _states(self) -> list[IntakeState]:
        return [app.state.intake for app in self._apps]

    def _path(self, scope: Scope) -> str:
        path: str = scope["path"]
        prefix = self._states()[0].settings.intake.root_path
        return path.removeprefix(prefix) if prefix and path.startswith(f"{prefix}/") else path

    async def _choose(self, scope: Scope, path: str, receive: Receive) -> tuple[Starlette, Receive]:
        """Return the app that serves a request, and its body for it; one without a key is refused by the first app."""
        first = self._states()[0]
        with contextlib.suppress(BitladderError):
            first.authenticator.authenticate(scope["headers"])
            if scope["method"] == "POST" and path in _BY_BODY:
                recorded = _Recorded(receive)
                return self._of_model(await self._model_of_body(scope, recorded)), recorded.again
            raw: bytes = scope.get("raw_path") or path.encode()
            if named := _BY_ID.search(raw):
                return await self._of_job(from_url(named[1].decode("latin-1"))), receive
            if path.startswith("/v1/models/"):
                return self._of_model(path.removeprefix("/v1/models/")), receive
        name = _model_of_query(scope)
        if path in _OF_ANY and not name:
            return next((app for app in self._apps if app.state.intake.inbox.is_connected), self._apps[0]), receive
        return self._of_model(name), receive

    async def _model_of_body(self, scope: Scope, recorded: _Recorded) -> str:
        first = self._states()[0]
        with contextlib.suppress(BitladderError):  # which the app finds too, and answers
            body = await read_bytes(HttpRequest(scope, recorded), first.settings.intake, self._closing)
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                return msgspec.json.decode(body, type=_Named).model
        return ""

    def _of_model(self, name: str) -> Starlette:
        for app, state in zip(self._apps, self._states(), strict=True):
            if name in state.settings.choices:
                return app
        return self._apps[0]

    async def _of_job(self, job_id: str) -> Starlette:
        """Return the app at whose Redis a job is; where one does not answer, it may be there, and its app says so."""
        held = await asyncio.gather(*(_has_job(state, job_id) for state in self._states()))
        for answer in (True, None):
            if answer in held:
                return self._apps[held.index(answer)]
        return self._apps[0]

    async def _merge(self, scope: Scope, path: str, receive: Receive) -> Response:
        recorded = _Recorded(receive)
        if scope["method"] == "POST":
            with contextlib.suppress(BitladderError):
                await read_bytes(HttpRequest(scope, recorded), self._states()[0].settings.intake, self._closing)
        answers = await asyncio.gather(*(self._ask(app, scope, recorded) for app in self._apps))
        good = [index for index, answer in enumerate(answers) if 200 <= answer.status < 300]
        if not good:  # a Redis that is down may have what the others do not know
            worst = next((answer for answer in answers if answer.status >= 500), answers[0])
            return Response(worst.body, worst.status, _kept(worst.headers))
        headers = _kept(answers[good[0]].headers)
        if path == "/metrics":
            texts = [(self._names[index] if index else "", answers[index].body.decode()) for index in good]
            return Response(merged_metrics(texts), 200, headers)
        whole = _MERGES.get(path, merged)([answers[index].json() for index in good])
        # A model, a tier or a worker that one does not know is another's.
        bad = {name: answer for name, answer in zip(self._names, answers, strict=True) if answer.status >= 300}
        lost = {name: _message(answer) for name, answer in bad.items() if answer.status != 404}
        return json_response(whole | ({"unreachable": lost} if lost or path == "/readyz" else {}), 200, headers)

    @property
    def _names(self) -> list[str]:
        """What each Redis is called: by its models."""
        return [",".join(state.settings.models) for state in self._states()]

    async def _ask(self, app: Starlette, scope: Scope, recorded: _Recorded) -> _Answered:
        headers = [(name, value) for name, value in scope["headers"] if name != b"accept"]
        answered = _Answered()
        try:
            await app(
                {**scope, "headers": headers, "state": dict(scope.get("state", {}))}, recorded.copy(), answered.take
            )
        except Exception:  # a defect, which the app has answered and logged; the others' answers count
            if not answered.status:
                raise
        return answered


class _Recorded:
    """A request's body, that can be read again: what was read of it, then the rest."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self._messages = receive, list[Message]()

    async def __call__(self) -> Message:
        message = await self._receive()
        self._messages.append(message)
        return message

    async def again(self) -> Message:
        return self._messages.pop(0) if self._messages else await self._receive()

    def copy(self) -> Receive:
        messages = [*self._messages, {"type": "http.request", "body": b"", "more_body": False}]

        async def receive() -> Message:
            return messages.pop(0) if len(messages) > 1 else messages[0]

        return receive


def _is_of_all(method: str, path: str) -> bool:
    is_order = (
        path.startswith("/v1/ops/") and path != "/v1/ops/audit"
    )  # orders for all are in the first one's audit log
    return path in ("/readyz", "/metrics") or (method, path) in _MERGED or is_order


def _model_of_query(scope: Scope) -> str:
    query: bytes = scope["query_string"]
    return parse_qs(query.decode("latin-1")).get("model", [""])[0]


async def _has_job(state: IntakeState, job_id: str) -> bool | None:
    """Return whether a job is at a Redis; None where it does not answer."""
    try:
        return bool(await state.queue.client.exists(f"rq:job:{job_id}"))
    except (RedisError, OSError):
        return None


def _kept(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    names = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
    return {name: value for name, value in names.items() if name != "content-length"}


def _message(answer: _Answered) -> str:
    with contextlib.suppress(msgspec.DecodeError, KeyError, TypeError):
        return str(answer.json()["error"]["message"])
    return f"status {answer.status}"
