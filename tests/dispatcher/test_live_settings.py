"""Settings that change while an intake runs are seen by every part of it, or by none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
import redis
from starlette.applications import Starlette

from bitladder.errors import ConfigError
from bitladder.settings.access import key_hash, new_key
from bitladder.settings.live import LiveSettings
from bitladder.settings.sections import Settings
from dispatcher.app import create_app
from tests.conftest import make_settings, wait_until

BODY = {"model": "smollm2", "prompt": "aa bb"}
KEY = new_key()
PUBLISHED = {"version": 7, "digest": "a" * 64}


class Intake:
    """An intake in this process, whose settings can be changed."""

    def __init__(self, app: Starlette, redis_url: str, folder: Path) -> None:
        self.live: LiveSettings = app.state.intake.live
        self.admission = app.state.intake.admission
        self.metrics = app.state.intake.metrics
        self._redis_url, self.folder = redis_url, folder
        self.http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://intake")

    def settings(self, **changes: Any) -> Settings:  # noqa: ANN401  (any setting)
        return make_settings(self._redis_url, capture__folder=str(self.folder), **changes)

    def change(self, **changes: Any) -> None:  # noqa: ANN401
        self.live.take(self.settings(**changes))

    async def submit(self, **headers: str) -> httpx2.Response:
        return await self.http.post("/v1/jobs", json=BODY, headers=headers)


@pytest_asyncio.fixture
async def intake(redis_url: str, settings: Settings, tmp_path: Path) -> AsyncIterator[Intake]:
    del settings  # it empties Redis
    app = create_app(make_settings(redis_url, capture__folder=str(tmp_path / "kept")))
    async with app.router.lifespan_context(app):
        intake = Intake(app, redis_url, tmp_path / "kept")
        await intake.admission.refresh()
        async with intake.http:
            yield intake


async def test_the_router_goes_by_them(intake: Intake) -> None:
    before = (await intake.submit()).json()

    intake.change(policy__name="fixed:fp8")

    assert [before["floor"], (await intake.submit()).json()["floor"]] == ["int4", "fp8"]


async def test_the_queue_goes_by_them(intake: Intake) -> None:
    assert (await intake.submit()).status_code == 202

    intake.change(queue__max_depth=1)

    refused = await intake.submit()
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
    assert "is full (1 jobs wait)" in refused.text


async def test_admission_goes_by_them(intake: Intake) -> None:
    assert (await intake.submit()).status_code == 202

    intake.change(queue__max_total=1)

    refused = await intake.submit()
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
    assert "at most 1 may ([queue].max_total)" in refused.text


async def test_the_capture_of_prompts_goes_by_them(intake: Intake) -> None:
    await intake.submit()
    assert not intake.folder.exists()

    intake.change(capture__share=1)
    await intake.submit()

    await asyncio.to_thread(wait_until, lambda: any(intake.folder.glob("*.jsonl")), "a prompt is written")


async def test_authentication_goes_by_them(intake: Intake) -> None:
    assert (await intake.submit()).status_code == 202
    key = {"hash": key_hash(KEY.encode()), "tenant": "acme"}

    intake.change(auth__keys={"one": key})
    answers = [await intake.submit(), await intake.submit(Authorization=f"Bearer {KEY}")]
    intake.change(auth__keys={"one": key | {"scopes": ["read"]}})
    answers.append(await intake.submit(Authorization=f"Bearer {KEY}"))
    intake.change()
    answers.append(await intake.submit())

    assert [answer.status_code for answer in answers] == [401, 202, 403, 202]


async def test_the_list_of_models_and_the_metrics_go_by_them(intake: Intake) -> None:
    intake.change(models__smollm2__tiers__int4__published=PUBLISHED)

    shown = (await intake.http.get("/v1/models")).json()["data"][0]["published"]
    assert shown["int4"]["version"] == 7
    assert intake.metrics.release_version._value.get() == 7


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"redis__timeout_s": 5}, "redis.timeout_s changed: that needs a restart"),
        ({"queue__secrets": ["a secret of ours, long"]}, "queue.secrets changed: that needs a restart"),
        ({"intake__port": 1, "queue__lease_s": 5}, "intake.port, queue.lease_s changed: that needs a restart"),
        ({"models__smollm2__tiers__int4__url": "http://x"}, "models.smollm2.tiers.int4.url changed"),
    ],
)
async def test_what_a_process_is_built_around_is_not_taken(intake: Intake, change: dict[str, Any], words: str) -> None:
    before = intake.live.current

    with pytest.raises(ConfigError, match=words):
        intake.change(policy__name="fixed:fp8", **change)

    assert intake.live.current is before
    assert (await intake.submit()).json()["floor"] == "int4"


async def test_what_one_part_cannot_take_no_part_takes(intake: Intake) -> None:
    key = {"hash": key_hash(KEY.encode()), "tenant": "acme"}
    intake.change(auth__keys={"one": key})
    changed = intake.settings(policy__name="fixed:fp8")
    without_keys = changed.model_copy(update={"auth": changed.auth.model_copy(update={"max_in_flight": 0})})

    with pytest.raises(ConfigError, match=r"auth.max_in_flight: Input should be greater than or equal to 1, got 0"):
        intake.live.take(without_keys)

    answers = [await intake.submit(), await intake.submit(Authorization=f"Bearer {KEY}")]
    assert [answer.status_code for answer in answers] == [401, 202]
    assert answers[1].json()["floor"] == "int4"


def test_the_order_of_the_tiers_needs_a_restart(settings: Settings) -> None:
    model = settings.models["smollm2"]
    turned = model.model_copy(update={"tiers": tuple(reversed(model.tiers))})

    with pytest.raises(ConfigError, match="models changed: that needs a restart"):
        LiveSettings(settings).take(settings.model_copy(update={"models": {"smollm2": turned}}))


def test_a_part_that_refuses_keeps_all_others_from_the_change(settings: Settings) -> None:
    live, taken = LiveSettings(settings), []
    live.subscribe(lambda changed: lambda: taken.append(changed))

    def refuse(changed: Settings) -> Any:  # noqa: ANN401
        raise ConfigError(f"not {changed.policy.name}")

    live.subscribe(refuse)

    with pytest.raises(ConfigError, match="not fixed:fp8"):
        live.take(settings.model_copy(update={"policy": settings.policy.model_copy(update={"name": "fixed:fp8"})}))

    assert (live.current, taken) == (settings, [])


async def test_why_a_change_is_refused_is_for_operators_where_keys_are_required(
    redis_url: str, store: redis.Redis
) -> None:
    del store  # it is empty
    keys = {"acme": {"hash": key_hash(KEY.encode()), "tenant": "acme", "scopes": ["ops"]}}
    app = create_app(make_settings(redis_url, auth__keys=keys))
    async with app.router.lifespan_context(app):
        app.state.intake.refused_change = "auth.keys.globex.policy fixed:int2: see /etc/bitladder.toml"
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://intake") as http:
            of_anybody = (await http.get("/readyz")).json()["refused_change"]
            of_operator = (await http.get("/readyz", headers={"Authorization": f"Bearer {KEY}"})).json()[
                "refused_change"
            ]

    assert "globex" not in of_anybody
    assert of_operator == "auth.keys.globex.policy fixed:int2: see bitladder.toml"
