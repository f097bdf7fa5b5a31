"""The operators' page in a real browser, on a real intake: with the mouse, with the keyboard alone, and for axe."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Iterator
from typing import Any, Literal
from urllib.parse import quote

import httpx2
import pytest
import redis
from playwright.sync_api import Browser, Page, Route, expect

from bitladder.ids import in_url, read_id
from bitladder.settings.access import key_hash, new_key
from tests.bitladder.test_ids import plant
from tests.conftest import Stack, wait_until
from tests.dispatcher.ops.browser import CHROMIUM, Tab, chromium

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
OPS, READER, USER = new_key(), new_key(), new_key()
SCOPES = {OPS: ["submit", "read", "ops"], READER: ["ops:read"], USER: ["submit", "read"]}
NAMES = {OPS: "ops", READER: "reader", USER: "user"}
BODY = {"model": "smollm2", "prompt": "aa bb", "max_tokens": 3}
PREFIX = "/llm"
NO_TEXT = b"\xff<b>"
MARKUP = "<img src=x onerror=ran=1>"
VIEWS = ("", "jobs", "dead-letters", "workers", "tenants", "settings", "audit")


def keys() -> str:
    entries = [
        f'{NAMES[key]} = {{hash = "{key_hash(key.encode())}", tenant = "{NAMES[key]}", scopes = {json.dumps(scopes)}}}'
        for key, scopes in SCOPES.items()
    ]
    return f"{{{', '.join(entries)}}}"


@pytest.fixture(scope="module")
def store(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url)


@pytest.fixture(scope="module")
def stack(redis_url: str, store: redis.Redis) -> Iterator[Stack]:
    """Return an intake below a path, whose lower tiers have no worker, and dead letters whose words are markup."""
    store.flushall()
    stack = Stack(redis_url, BITLADDER_AUTH__KEYS=keys(), BITLADDER_INTAKE__ROOT_PATH=PREFIX)
    stack.http.headers["Authorization"] = f"Bearer {OPS}"
    stack.intake()
    for job_id in (*(f"{MARKUP}{number}".encode() for number in range(3)), NO_TEXT):
        plant(store, job_id, status=MARKUP)
    stack.worker("fp8")
    wait_until(lambda: stack.http.get("/v1/dead-letters").json()["total"] == 4, "the dead letters are there")
    for _ in range(3):
        assert stack.http.post("/v1/completions", json=BODY).headers["x-overflowed-from"] == "int4"
    yield stack
    stack.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


OpenTab = Callable[..., Tab]


@pytest.fixture(scope="module")
def shared_tab(browser: Browser, stack: Stack) -> Tab:
    """Return the operator's tab, for all tests that need no new one: to load the page takes half a second."""
    return Tab(browser, stack.url + PREFIX, OPS)


@pytest.fixture
def open_tab(browser: Browser, stack: Stack, shared_tab: Tab) -> Iterator[OpenTab]:
    """Return what opens a tab with a key; the operator's is there. None may complain of anything."""
    tabs: list[Tab] = []

    def open_one(key: str = OPS, *, new: bool = False, **options: Any) -> Tab:  # noqa: ANN401  (Playwright's)
        if key == OPS and not new and not options:
            return shared_tab
        tabs.append(Tab(browser, stack.url + PREFIX, key, **options))
        return tabs[-1]

    yield open_one
    for tab in tabs:
        tab.close()
    assert [problem for tab in (shared_tab, *tabs) for problem in tab.problems] == []


def test_the_page_asks_for_a_key_and_keeps_it_for_its_tab_alone(open_tab: OpenTab, stack: Stack) -> None:
    tab = open_tab("")
    page = tab.open()
    expect(page.get_by_role("heading", level=1)).to_have_text("This intake requires an API key")
    page.get_by_label("API key").fill("bl-wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("valid API key")
    page.get_by_label("API key").fill("bl-ключ")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("a character that is not ASCII")
    page.get_by_label("API key").fill(OPS)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    expect(page.locator("#connection")).to_have_text("live")
    expect(tab.open("toString").get_by_role("heading", level=1)).to_have_text("Overview")  # no view has this name
    other = open_tab("")

    expect(other.open().get_by_label("API key")).to_be_visible()
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]


def test_all_comes_from_the_intake_and_is_below_200_kb(open_tab: OpenTab, stack: Stack) -> None:
    tab = open_tab(new=True)
    page = tab.open()
    expect(page.locator("#connection")).to_have_text("live")
    files = [one for one in tab.responses if one.url == f"{tab.url}/" or "/ui/" in one.url]
    sizes = [one.request.sizes() for one in files]

    assert {one.url.startswith(stack.url) for one in tab.responses} == {True}
    assert len(files) > 10
    assert sum(size["responseBodySize"] + size["responseHeadersSize"] for size in sizes) < 100_000  # packed


def with_more_tiers(route: Route) -> None:
    """Answer as the intake does, but as if there were eight tiers with a history."""
    answer = route.fetch()
    history = answer.json()
    (model,) = history["models"]
    tier = model["tiers"][0] | {"depth": [1.0] * len(history["at"])}
    model["tiers"] = [tier | {"tier": f"t{number}"} for number in range(8)]
    route.fulfill(response=answer, json=history)


def test_the_ladder_shows_each_tier_the_top_one_first_and_what_is_wrong(open_tab: OpenTab) -> None:
    tab = open_tab(new=True)
    tab.page.route("**/v1/overview/history*", with_more_tiers)
    page = tab.open()
    rungs = page.locator(".rung")

    expect(rungs.locator("h3")).to_contain_text(["fp8", "int8", "int4"])
    expect(rungs.nth(0)).not_to_contain_text("no live worker")
    expect(rungs.nth(2)).to_contain_text("no live worker")
    expect(page.get_by_role("region", name="Notes")).to_contain_text("int4: no live worker")
    for name in ("Waiting", "Oldest", "Expected wait", "In flight", "Workers", "Tokens/s", "Cost/h"):
        expect(rungs.nth(0).get_by_role("term").filter(has_text=name)).to_be_visible()
    expect(page.locator("figure").first.locator(".legend span")).to_have_text([f"t{number} 1" for number in range(8)])


def test_what_others_wrote_is_shown_as_they_wrote_it_and_never_run(open_tab: OpenTab) -> None:
    page = open_tab().open("dead-letters")
    page.get_by_role("link", name=f"{MARKUP}0").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Job {MARKUP}0")
    expect(page.get_by_role("region", name="State")).to_contain_text("corrupt_job: the status in the job's record")

    assert page.evaluate("[window.ran, document.images.length]") == [None, 0]


def test_a_job_is_shown_whose_id_is_no_text(open_tab: OpenTab) -> None:
    page = open_tab().open("dead-letters")
    page.get_by_role("link", name=in_url(read_id(NO_TEXT))).click()

    expect(page.get_by_role("region", name="State")).to_contain_text("corrupt_job")


def test_dead_letters_are_dropped_once_their_number_is_typed(open_tab: OpenTab, stack: Stack) -> None:
    page = open_tab().open("dead-letters")
    total = stack.http.get("/v1/dead-letters").json()["total"]
    page.get_by_role("button", name=f"Drop {MARKUP}2").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("1 jobs are taken out for good")
    dialog.get_by_role("button", name="Drop 1").click()
    expect(dialog).to_be_visible()
    dialog.get_by_label("Reason").fill("nobody waits for it")
    dialog.get_by_label("to confirm").fill("2")
    dialog.get_by_role("button", name="Drop 1").click()
    expect(dialog.get_by_role("alert")).to_have_text("Type 1 to confirm.")
    dialog.get_by_label("to confirm").fill("1")
    page.keyboard.press("Enter")

    expect(page.locator("p.done")).to_have_text("1 of 1 dropped.")
    assert stack.http.get("/v1/dead-letters").json()["total"] == total - 1


def test_overflow_rises_with_its_numbers_and_stands_still_for_who_wants_no_motion(
    open_tab: OpenTab, stack: Stack
) -> None:
    page = open_tab().open()
    overflow = page.locator(".rung").first.locator(".overflow li")
    expect(overflow).to_have_text("↑3 jobs a minute escalate from int4 to fp8")
    names = []
    choices: tuple[Literal["no-preference", "reduce"], ...] = ("no-preference", "reduce")
    for choice in choices:
        page.emulate_media(reduced_motion=choice)
        names.append(overflow.locator(".arrow").evaluate("arrow => getComputedStyle(arrow).animationName"))

    assert names == ["rise", "none"]


def test_one_job_is_explained_with_its_way_and_its_stream(open_tab: OpenTab, stack: Stack) -> None:
    headers = {"X-Tags": "<b>tag</b>"}
    asked = BODY | {"stream": True, "metadata": {"note": "\u202eturned"}}
    job_id = stack.http.post("/v1/jobs", json=asked, headers=headers).json()["id"]
    stack.http.get(f"/v1/jobs/{job_id}?wait=20")
    page = open_tab().open("jobs")
    page.get_by_label("Job id").fill(job_id)
    page.keyboard.press("Enter")

    expect(page.get_by_role("region", name="State")).to_contain_text("finished")
    expect(page.get_by_role("region", name="State")).to_contain_text("<b>tag</b>")
    expect(page.get_by_role("region", name="State")).to_contain_text("note: \ufffdturned")
    expect(page.get_by_role("region", name="Why here")).to_contain_text("entropy")
    expect(page.get_by_role("region", name="Executions and escalations")).to_contain_text("escalated from int4 to fp8")
    expect(page.locator("main")).not_to_contain_text("aa bb")  # neither prompt nor answer, unless it is asked for
    page.get_by_role("button", name="Show its stream").click()
    expect(page.get_by_role("region", name="The answer as it is written")).to_have_text("aa bb aa")


def test_jobs_are_filtered_by_what_the_url_says_and_the_next_page_is_loaded(open_tab: OpenTab, stack: Stack) -> None:
    for _ in range(60):
        stack.http.post("/v1/jobs", json=BODY, headers={"X-Max-Tier": "int4", "X-Tags": "nightly"})
    page = open_tab().open("jobs")
    page.get_by_label("State").select_option("queued")
    page.get_by_label("Tag").fill("nightly")
    page.keyboard.press("Enter")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(50)
    assert page.url.endswith("#/jobs?state=queued&tag=nightly")
    page.reload()
    expect(page.get_by_label("Tag")).to_have_value("nightly")
    page.get_by_role("button", name="Load more").click()
    expect(rows).to_have_count(60)
    expect(rows.first).to_contain_text("nightly")
    page.get_by_label("State").select_option("finished")
    page.get_by_role("button", name="Filter").click()

    expect(page.locator("main")).to_contain_text("0 shown")


def test_all_jobs_of_a_filter_are_moved_up_or_cancelled_once_their_number_is_typed(
    open_tab: OpenTab, stack: Stack
) -> None:
    for _ in range(3):
        stack.http.post("/v1/jobs", json=BODY, headers={"X-Max-Tier": "int8", "X-Min-Tier": "int4", "X-Tags": "late"})
    page = open_tab().open("jobs?tag=late")
    page.get_by_role("button", name="Cancel them").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Jobs: 3 (3 in smollm2:int4:normal:max-int8)")
    dialog.get_by_label("Reason").fill("too late")
    dialog.get_by_label("to confirm").fill("3")
    page.keyboard.press("Enter")
    expect(page.locator("p.done")).to_have_text("Cancel them: 3 cancelled.")
    expect(page.locator("tbody tr td.cancelled")).to_have_count(3)
    page.get_by_role("button", name="Move them up to int8").click()

    expect(page.locator("p.problem")).to_contain_text("int8 has no live worker")


def test_a_tenant_sees_its_own_jobs(open_tab: OpenTab, stack: Stack) -> None:
    mine = httpx2.post(f"{stack.url}/v1/jobs", json=BODY, headers={"Authorization": f"Bearer {USER}"}).json()["id"]
    page = open_tab(USER).open("jobs")

    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("tbody tr")).to_contain_text(mine[:30])


def test_a_waiting_job_is_cancelled_after_a_question(open_tab: OpenTab, stack: Stack) -> None:
    job_id = stack.http.post("/v1/jobs", json=BODY, headers={"X-Max-Tier": "int4"}).json()["id"]
    page = open_tab().open(f"job/{job_id}")
    page.get_by_role("button", name="Cancel the job").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the job").click()

    expect(page.locator("p.done")).to_have_text("Cancellation: cancelled.")
    assert stack.http.get(f"/v1/jobs/{job_id}").json()["status"] == "cancelled"


def press_until(page: Page, name: str) -> None:
    """Press Tab until the focus is on what has this name."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == name:
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline == "solid", f"the focus on {name} is not seen"
            return
    raise AssertionError(f"Tab does not lead to {name}")


def test_a_tier_is_paused_and_resumed_with_the_keyboard_alone(open_tab: OpenTab, stack: Stack) -> None:
    page = open_tab().open()
    expect(page.locator("#connection")).to_have_text("live")
    press_until(page, "Pause int8")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_have_accessible_name("Pause int8?")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert stack.http.get("/v1/ops/pauses").json()["data"] == []

    # The focus came back to the button; a close event that comes only now must not empty the new question.
    page.keyboard.press("Enter")
    page.keyboard.type("odd answers")
    page.keyboard.press("Enter")
    expect(page.locator(".rung").nth(1)).to_contain_text("Paused: tier:smollm2:int8 by ops")
    (pause,) = stack.http.get("/v1/ops/pauses").json()["data"]
    press_until(page, "Resume tier:smollm2:int8")
    page.keyboard.press("Enter")
    page.keyboard.type("all is well")
    page.keyboard.press("Enter")
    expect(page.locator("p.done")).to_have_text("Resumed: tier:smollm2:int8.")
    page.goto(f"{stack.url}{PREFIX}/#/audit")
    rows = page.get_by_role("row")

    expect(rows.nth(1)).to_contain_text("resume")
    expect(rows.nth(2)).to_contain_text("odd answers")
    assert (pause["scope"], pause["by"], pause["reason"]) == ("tier:smollm2:int8", "ops", "odd answers")
    assert stack.http.get("/v1/ops/pauses").json()["data"] == []


def test_a_setting_is_changed_and_taken_back_with_who_and_why(open_tab: OpenTab, stack: Stack) -> None:
    name = "models.smollm2.tiers.int4.slots"
    page = open_tab().open("settings?has=int4.slots")
    row = page.get_by_role("row").filter(has_text=name)
    row.get_by_role("button", name=f"Change {name}").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Value, as JSON").fill("17")
    dialog.get_by_label("Reason").fill("a burst is coming")
    page.keyboard.press("Enter")
    expect(row).to_contain_text("by key ops: a burst is coming")
    settings = {one["key"]: one["value"] for one in stack.http.get("/v1/settings").json()["data"]}
    row.get_by_role("button", name=f"Take back {name}").click()
    dialog.get_by_label("Reason").fill("it is over")
    page.keyboard.press("Enter")
    expect(row).not_to_contain_text("a burst is coming")

    assert settings[name] == 17
    assert stack.http.get("/v1/settings?live=true").json()["data"] == []


def test_who_may_only_look_sees_why_buttons_do_nothing_and_is_refused_by_the_intake(open_tab: OpenTab) -> None:
    tab = open_tab(READER)
    page = tab.open("dead-letters")
    button = page.get_by_role("button", name="Release all with corrupt_job")
    expect(button).to_have_attribute("aria-disabled", "true")
    expect(button).to_have_accessible_description("this key lacks the scope ops:write")
    expect(page.locator("main")).to_contain_text(
        "This key lacks the scope ops:write: releasing and dropping are disabled."
    )
    button.click(force=True)
    expect(page.get_by_role("dialog")).to_have_count(0)
    refused = httpx2.post(
        f"{tab.url}/v1/dead-letters/release", json={"all": True}, headers={"Authorization": f"Bearer {READER}"}
    )

    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "missing_scope")


def test_a_key_without_ops_is_told_what_it_lacks(open_tab: OpenTab) -> None:
    tab = open_tab(USER)
    expect(tab.open().locator("main")).to_contain_text("This key lacks the scope ops:read")
    expect(tab.open("dead-letters").locator("main")).to_contain_text("this needs a key with the scope 'ops:read'")

    assert not [one.url for one in tab.responses if "/v1/overview" in one.url]


def test_a_hidden_tab_asks_for_nothing_and_a_shown_one_goes_on(open_tab: OpenTab) -> None:
    page = open_tab(new=True).open()
    expect(page.locator("#connection")).to_have_text("live")
    show = "hidden => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true}); " + (
        "dispatchEvent(new Event('visibilitychange')); }"
    )
    with page.expect_event("requestfailed", lambda request: request.url.endswith("/v1/overview/stream")):
        page.evaluate(show, True)
    with page.expect_request("**/v1/overview/stream"):
        page.evaluate(show, False)


@pytest.mark.parametrize(
    ("scheme", "views"),
    [
        ("light", ("", "dead-letters")),
        pytest.param("light", VIEWS, marks=pytest.mark.long),
        pytest.param("dark", VIEWS, marks=pytest.mark.long),
    ],
    ids=["some", "light", "dark"],
)
def test_no_view_breaks_a_rule_of_axe(open_tab: OpenTab, stack: Stack, scheme: str, views: tuple[str, ...]) -> None:
    tab = open_tab(READER, color_scheme=scheme)
    job_id = stack.http.get("/v1/dead-letters").json()["data"][0]["id"]
    broken = {}
    for view in (*views, f"job/{quote(job_id)}"):
        page = tab.open(view)
        expect(page.locator("main")).not_to_contain_text(re.compile("Reading…|Waiting for"))
        broken[view] = tab.broken_rules(*(["color-contrast"] if scheme == "dark" else []))

    assert {view: rules for view, rules in broken.items() if rules} == {}


def test_what_is_stale_says_since_when_until_the_intake_is_back(open_tab: OpenTab, stack: Stack) -> None:
    page = open_tab().open()
    expect(page.locator("#connection")).to_have_text("live")
    intake = stack.processes[0]
    intake.send_signal(signal.SIGKILL)
    intake.wait()
    expect(page.locator("#connection")).to_contain_text(re.compile(r"stale since \d{4}-.*: "))
    expect(page.locator(".rung").first).to_be_visible()
    stack.intake()

    expect(page.locator("#connection")).to_have_text("live")


@pytest.mark.long
def test_an_outage_is_said_once_and_a_clock_that_is_set_back_stops_nothing(
    open_tab: OpenTab, stack: Stack, store: redis.Redis
) -> None:
    page = open_tab(new=True).open("jobs")
    expect(page.locator("#connection")).to_have_text("live")
    page.evaluate(_NOTE_LINES)
    store.acl_setuser("default", enabled=True, commands=["-info"])
    try:
        page.wait_for_timeout(8000)
    finally:
        store.acl_setuser("default", enabled=True, commands=["+info"])
    expect(page.locator("#connection")).to_have_text("live")
    lines = page.evaluate("lines")
    with page.expect_request("**/v1/jobs?*"):
        page.evaluate("Date.now = () => 0")

    assert len(lines) == 2, lines
    assert re.match("stale since .*: Redis denies its user a right", lines[0])


_NOTE_LINES = """
    window.lines = [];
    const line = document.getElementById("connection");
    new MutationObserver(() => lines.push(line.textContent)).observe(line, {childList: true, subtree: true});
"""
