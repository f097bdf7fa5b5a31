"""Where the settings' commands ask: an intake, or Redis itself, with the same answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from bitladder.cli.ops.asking import Answer, as_answer, ask_intake, at_live_store
from bitladder.cli.ops.operator_name import operator
from bitladder.errors import ConfigError

if TYPE_CHECKING:
    from bitladder.queue.upkeep.live_settings import LiveStore
    from bitladder.settings.load import Loaded


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
        assert self._url  # noqa: S101  (who calls has asked)
        return ask_intake(self._url, self._api_key, method, path, **arguments)

    def _ask(self, work: Callable[[LiveStore, Loaded], Awaitable[object]]) -> Answer:
        from bitladder.settings.load import load_settings

        files = load_settings(self._config, with_keys=True)
        return as_answer(asyncio.run(at_live_store(files, lambda store: work(store, files))))
