"""For batch producers on the inside: score, route and queue thousands of prompts straight in Redis, without HTTP."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

import msgspec
from redis.exceptions import NoScriptError, RedisError

from dispatcher.contract import Endpoint, Lane, Submission
from dispatcher.errors import BitladderError, QueueUnreachableError
from dispatcher.intake.accept import Incoming, accept
from dispatcher.queue.commands import read_submitted, submit_call
from dispatcher.queue.connection import connect_sync
from dispatcher.queue.scripts import digest, source
from dispatcher.sections import Settings

# Jobs per pipeline: large enough to make the round trip vanish, small enough to keep the server responsive.
BUNDLE = 256


class Producer:
    """Queues many jobs with few round trips; blocking."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client = connect_sync(settings.redis)

    def submit_many(
        self,
        bodies: Iterable[dict[str, Any]],
        *,
        lane: Lane = Lane.BATCH,
        headers: dict[str, str] | None = None,
    ) -> list[str | BitladderError]:
        """Queue bodies as they would come by HTTP; for each its job id, or why it was refused.

        Raises:
            RequestError: a body or header is wrong; bundles before it are queued.
            QueueUnreachableError: Redis is away; what was queued before stays queued.

        """
        answers: list[str | BitladderError] = []
        lower = {name.lower(): value for name, value in (headers or {}).items()}
        every = (self._submission(body, lane, lower) for body in bodies)
        while bundle := list(islice(every, BUNDLE)):
            answers += self._push(bundle)
        return answers

    def close(self) -> None:
        self._client.close()

    def _submission(self, body: dict[str, Any], lane: Lane, headers: dict[str, str]) -> Submission:
        endpoint = Endpoint.CHAT if "messages" in body else Endpoint.COMPLETIONS
        raw = msgspec.json.encode(body)
        incoming = Incoming(endpoint=endpoint, body=raw, headers=headers, request_id="producer", lane=lane)
        return accept(incoming, self._settings).submission

    def _push(self, jobs: list[Submission]) -> list[str | BitladderError]:
        try:
            self._client.script_load(source("submit"))
            pipe = self._client.pipeline(transaction=False)
            for job in jobs:
                call = submit_call(self._settings, job)
                pipe.evalsha(digest(call.script), len(call.keys), *call.keys, *call.args)
            return [_read(answer, job) for answer, job in zip(pipe.execute(), jobs, strict=True)]
        except (RedisError, NoScriptError, OSError) as error:
            raise QueueUnreachableError(f"Redis does not answer: {error}") from error


def _read(answer: list[bytes], job: Submission) -> str | BitladderError:
    try:
        return read_submitted(answer, job)
    except BitladderError as error:
        return error
