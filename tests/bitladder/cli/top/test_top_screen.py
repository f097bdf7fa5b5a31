"""The rows of `bitladder top`, and its screen as keys and samples change it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import msgspec
import pytest
from textual.widgets import DataTable, Static

from bitladder.cli.top.samples import Item
from bitladder.cli.top.tier_rows import Sort, bars, duration, rows_of, summary
from bitladder.cli.top.top_screen import TopScreen
from bitladder.errors import BitladderError, JobError, NotFoundError
from bitladder.overview.shape import Overview
from bitladder.queue.json_views.steering.pausing import PauseEntry
from tests.conftest import ROOT

OVERVIEW = msgspec.json.decode((ROOT / "tests/bitladder/overview/overview_sample.json").read_bytes(), type=Overview)
TWO_MODELS = msgspec.structs.replace(
    OVERVIEW, models=[*OVERVIEW.models, msgspec.structs.replace(OVERVIEW.models[0], model="other")]
)


class Feed:
    """Samples that a test hands out."""

    def __init__(self) -> None:
        self._items: asyncio.Queue[Item] = asyncio.Queue()

    def send(self, item: Item) -> None:
        self._items.put_nowait(item)

    async def __call__(self) -> AsyncGenerator[Item]:
        while True:
            yield await self._items.get()


def no_order(word: str, target: Mapping[str, object]) -> object:
    raise AssertionError(f"{word} {target}: nobody ordered this")


def shown(app: TopScreen, name: str) -> str:
    return str(app.screen_stack[0].query_one(f"#{name}", Static).content)


def cells(app: TopScreen) -> list[list[str]]:
    table: DataTable[Any] = app.screen_stack[0].query_one("#tiers", DataTable)
    return [[str(cell) for cell in table.get_row_at(place)] for place in range(table.row_count)]


def test_rows_begin_with_the_highest_tier_and_say_what_is_wrong_in_words() -> None:
    rows = rows_of(OVERVIEW)

    assert [row.cells[:4] for row in rows] == [
        ("smollm2", "fp8", "no worker", "0"),
        ("smollm2", "int8", "ok", "7"),
        ("smollm2", "int4", "breaker open", "321"),
    ]
    assert rows[2].cells[4:] == ("0/81/240", "1m35s", "6.4s", "16", "1+1", "16/16", "9.8", "612", "1.40", "-")
    assert rows[1].cells[-1] == "int4 184"
    assert [row.is_wrong for row in rows] == [True, False, True]


@pytest.mark.parametrize(
    ("sort", "tiers"),
    [
        (Sort.DEPTH, ["int4", "int8", "fp8"]),
        (Sort.TOKENS, ["int8", "int4", "fp8"]),
        (Sort.COST, ["int8", "int4", "fp8"]),
        (Sort.OLDEST, ["int4", "int8", "fp8"]),
    ],
)
def test_rows_are_sorted_by_what_is_asked_for(sort: Sort, tiers: list[str]) -> None:
    assert [row.tier.tier for row in rows_of(OVERVIEW, sort)] == tiers


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.04, "0.0s"), (9.96, "10.0s"), (59.4, "59s"), (61, "1m01s"), (3700, "1h01m"), (200_000, "2d7h")],
)
def test_a_time_is_short_enough_for_a_column(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_bars_are_as_tall_as_the_tallest() -> None:
    assert (bars([0, 1, 7]), bars([0, 0]), bars([])) == ("▁▂█", "▁▁", "")


def test_the_summary_has_memory_dead_letters_and_costs_of_today() -> None:
    assert summary(OVERVIEW) == [
        "Valkey 9.1.2  memory 237 MiB (23%)  dead letters 7 (engine_fault 5, worker_lost 2)",
        "today: 48,211 requests, 3,120,400 tokens, attributed 14.80, rent 31.20, all on top tiers 52.12",
    ]


async def test_the_screen_shows_samples_and_keys_sort_filter_explain_and_leave() -> None:
    feed = Feed()
    app = TopScreen("http://intake", feed, Sort.LADDER, None, no_order)
    async with app.run_test(size=(160, 40)) as pilot:
        assert "waiting for a sample" in shown(app, "head")
        feed.send(TWO_MODELS)
        await pilot.pause()
        assert len(cells(app)) == 6
        assert "critical: smollm2 fp8: no live worker" in shown(app, "notes")
        await pilot.press("s")
        assert "sorted by depth" in shown(app, "head")
        assert cells(app)[0][1] == "int4"
        await pilot.press("m", "m")
        assert {row[0] for row in cells(app)} == {"other"}
        await pilot.press("question_mark")
        assert len(app.screen_stack) == 2
        feed.send(OVERVIEW)
        async with asyncio.timeout(10):
            while len(app.screen_stack) > 1:  # it takes keys once it is mounted
                await pilot.press("escape")
        assert "model all" in shown(app, "head")  # the one that was shown is gone
        await pilot.press("q")
    assert (app.failure, app.return_code) == (None, 0)


async def test_a_small_terminal_shows_tiers_and_stays_where_its_reader_has_scrolled_to() -> None:
    feed = Feed()
    long = msgspec.structs.replace(OVERVIEW, models=[msgspec.structs.replace(OVERVIEW.models[0], model="m" * 60)])
    app = TopScreen("http://x", feed, Sort.LADDER, None, no_order)
    async with app.run_test(size=(40, 12)) as pilot:
        feed.send(long)
        await pilot.pause()
        table: DataTable[Any] = app.screen_stack[0].query_one("#tiers", DataTable)
        await pilot.press(*["right"] * 5)
        await pilot.pause()
        before = table.scroll_x
        feed.send(msgspec.structs.replace(long, at=long.at + 1))
        await pilot.pause()

        assert (before > 0, table.scroll_x) == (True, before)
        assert cells(app)[0][0] == "mmmmmmmmmmm…mmmmmmmmmmmm"
        assert [app.screen_stack[0].query_one(name).size.height for name in ("#head", "#below")] == [2, 4]


async def test_an_outage_is_shown_over_the_last_sample_and_ends_with_the_next() -> None:
    feed = Feed()
    app = TopScreen("http://intake", feed, Sort.LADDER, None, no_order)
    async with app.run_test(size=(160, 40)) as pilot:
        feed.send(OVERVIEW)
        feed.send(JobError("cannot reach the intake at http://intake/: \x1b[31mrefused"))
        await pilot.pause()
        assert shown(app, "trouble") == "cannot reach the intake at http://intake/:  [31mrefused"
        assert len(cells(app)) == 3
        feed.send(OVERVIEW)
        await pilot.pause()
        assert not app.query_one("#trouble").display


@pytest.mark.parametrize(
    ("item", "model", "kind"),
    [(JobError("this needs a key", 403), None, JobError), (OVERVIEW, "gpt-5", NotFoundError)],
)
async def test_the_screen_ends_where_no_later_try_can_help(
    item: Item, model: str | None, kind: type[BitladderError]
) -> None:
    feed = Feed()
    feed.send(item)
    app = TopScreen("http://intake", feed, Sort.LADDER, model, no_order)
    async with app.run_test(size=(160, 40)) as pilot:
        await pilot.pause()

    assert type(app.failure) is kind


def with_pause(scope: str) -> Overview:
    pause = PauseEntry(scope=scope, operator="ops", reason="odd answers", since=1.0, until=None)
    tiers = [msgspec.structs.replace(tier, paused=pause) for tier in OVERVIEW.models[0].tiers]
    return msgspec.structs.replace(OVERVIEW, models=[msgspec.structs.replace(OVERVIEW.models[0], tiers=tiers)])


@pytest.mark.parametrize(
    ("overview", "answer", "ordered"),
    [
        (OVERVIEW, "y", [("pause", {"model": "smollm2", "tier": "int8"})]),
        (OVERVIEW, "escape", []),
        (with_pause("model:smollm2"), "y", [("resume", {"scope": "model:smollm2"})]),
    ],
)
async def test_p_pauses_or_resumes_the_tier_under_the_cursor_once_it_is_answered(
    overview: Overview, answer: str, ordered: list[Any]
) -> None:
    feed, orders = Feed(), []
    app = TopScreen("x", feed, Sort.LADDER, None, lambda word, target: orders.append((word, target)))
    async with app.run_test(size=(160, 40)) as pilot:
        feed.send(overview)
        await pilot.pause()
        await pilot.press("down", "p")
        async with asyncio.timeout(10):
            while len(app.screen_stack) > 1:
                await pilot.press(answer)
            while len(orders) < len(ordered):
                await pilot.pause()

    assert orders == [(word, target | {"reason": "bitladder top"}) for word, target in ordered]


async def test_an_order_that_is_refused_is_said() -> None:
    def refuse(word: str, target: Mapping[str, object]) -> object:
        raise JobError(f"this needs a key with the scope 'ops:write' {len(target)} {word}", 403)

    feed = Feed()
    app = TopScreen("x", feed, Sort.LADDER, None, refuse)
    async with app.run_test(size=(160, 40)) as pilot:
        feed.send(OVERVIEW)
        await pilot.pause()
        await pilot.press("p")
        async with asyncio.timeout(10):
            while len(app.screen_stack) > 1:
                await pilot.press("y")
            while not app._notifications:
                await pilot.pause()
        (notice,) = app._notifications

    assert "this needs a key with the scope 'ops:write'" in notice.message
    assert app.failure is None
