"""The application of an intake process: one app, or one for each Redis with a front before them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from starlette.types import ASGIApp

from bitladder.settings.live import ReleaseWatch
from bitladder.settings.load import Loaded
from bitladder.settings.sections import Settings
from dispatcher.app import create_app
from dispatcher.http.closing import Closing
from dispatcher.several.front import Front


def open_intake(watch: ReleaseWatch, load: Callable[[], Loaded], closing: Closing) -> ASGIApp:
    """Return the application that serves the models of all Redis.

    Raises:
        ConfigError: as of `create_app`.

    """
    groups = watch.settings.at_each_redis
    if len(groups) == 1:
        model = next(iter(groups[0].models))
        watch.narrow_to(partial(_at_redis_of, model))
        return create_app(watch.settings, watch, closing)
    apps = []
    for group in groups:
        part = ReleaseWatch(load, partial(_at_redis_of, next(iter(group.models))))
        apps.append(create_app(part.settings, part, closing, live_settings_at=groups[0].redis))
    return Front(apps, closing)


def _at_redis_of(model: str, settings: Settings) -> Settings:
    return settings.at_redis_of(model)
