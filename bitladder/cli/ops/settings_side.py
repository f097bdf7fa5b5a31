"""Where the settings' commands ask: an intake, or Redis itself, with the same answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import typer

from bitladder.cli.ops.operator_name import operator
from bitladder.errors import ConfigError

if TYPE_CHECKING:
    from bitladder.queue.upkeep.live_settings import LiveStore
    from bitladder.settings.load import Loaded

# An answer of the HTTP interface (docs/operating/live-settings.md).
Answer = dict[str, Any]
_T = TypeVar("_T")


class SettingsSide:
    """What operators ask and order about live settings."""

    def __init__(self, url: str | None, api_key: str | None, config: str | None) -> None:
        self._url, self._api_key, self._config = None if config else url, api_key, config

    def list(self, *, only_live: bool) -> Answer:
        if self._url:
            return self._call("GET", "/v1/settings", params={"live": str(only_live).lower()})
        from bitladder.queue.json_views.settings_answers import list_settings

        return self._ask(lambda store, files: list_settings(store, files, only_live=only_live))

    def change(self, order: Answer) -> Answer:
        if self._url:
            return self._call("PATCH", "/v1/settings", json=order)
        from bitladder.queue.json_views.settings_answers import SettingsChange, change_settings

        try:
            change = msgspec.convert(order, SettingsChange)
        except msgspec.ValidationError as error:
            raise ConfigError(f"the change: {error}") from None
        return self._ask(lambda store, files: change_settings(store, files, change, operator()))

    def history(self, limit: int) -> Answer:
        if self._url:
            return self._call("GET", "/v1/settings/history", params={"limit": limit})
        from bitladder.queue.json_views.settings_answers import read_history

        return self._ask(lambda store, _: read_history(store, limit))

    def _call(self, method: str, path: str, **arguments: Any) -> Answer:  # noqa: ANN401  (of the client's call)
        from bitladder.cli.job_commands import intake_client

        assert self._url  # noqa: S101  (who calls has asked)
        with intake_client(self._url, self._api_key) as client:
            return client.call(method, path, **arguments)

    def _ask(self, work: Callable[[LiveStore, Loaded], Awaitable[object]]) -> Answer:
        from bitladder.settings.load import load_settings

        answer: Answer = json.loads(
            msgspec.json.encode(asyncio.run(at_redis(load_settings(self._config, with_keys=True), work)))
        )
        return answer


async def at_redis(files: Loaded, work: Callable[[LiveStore, Loaded], Awaitable[_T]]) -> _T:
    """Ask Redis itself, without an intake."""
    from bitladder.queue.job_queue import JobQueue
    from bitladder.queue.server.connection import connect
    from bitladder.queue.upkeep.live_settings import LiveStore

    first = files.settings.at_each_redis[0]
    client = connect(first.redis)
    try:
        return await work(LiveStore(JobQueue(client, first)), files)
    finally:
        await client.aclose()


def in_force(files: Loaded, *, says_why: bool = False) -> Loaded:
    """Return the settings as running processes have them: what stands over them in Redis, where that can be read.

    `says_why`: also where Redis cannot be asked, which other commands meet themselves.
    """
    from bitladder.errors import QueueUnreachableError
    from bitladder.settings.live_values import with_live

    try:
        return with_live(files, asyncio.run(at_redis(files, lambda store, _: store.read())))
    except QueueUnreachableError as error:
        if says_why:
            typer.secho(f"without the live settings: {error}", err=True, fg="yellow")
    except ConfigError as error:
        typer.secho(str(error), err=True, fg="red")
    return files
