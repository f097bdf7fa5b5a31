"""docs/operating/top.md and docs/api/overview.md: each thing that goes wrong is found in the words of the page."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable

import msgspec

from bitladder.cli.top.tier_rows import COLUMNS, rows_of, summary
from bitladder.overview.shape import Overview
from bitladder.settings.access import key_hash, new_key
from tests.conftest import ROOT, Stack, wait_until
from tests.page_examples import blocks, here
from tests.warm_start import BITLADDER

PAGE = "docs/operating/top.md"
ACME, OPS = new_key(), new_key()
_ACME = f'{{hash = "{key_hash(ACME.encode())}", tenant = "acme", budget_per_day = 1e-6}}'
_OPS = f'{{hash = "{key_hash(OPS.encode())}", tenant = "ops", scopes = ["submit", "read", "ops:read"]}}'


def ask(stack: Stack, prompt: str, key: str = OPS, **headers: str) -> None:
    stack.http.post(
        "/v1/jobs",
        json={"model": "smollm2", "prompt": prompt, "max_tokens": 2},
        headers={"Authorization": f"Bearer {key}", **headers},
    ).raise_for_status()


def test_what_goes_wrong_is_found_in_the_words_of_the_page(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(BITLADDER_AUTH__KEYS=f"{{acme = {_ACME}, ops = {_OPS}}}", BITLADDER_QUEUE__LEASE_S="1")
    stack.http.headers["Authorization"] = f"Bearer {OPS}"
    stack.intake()
    stack.worker("int8")
    int4 = stack.worker("int4")
    begun_s = time.monotonic()
    ask(stack, "echo:fault of ours", **{"X-Max-Tier": "int8"})
    ask(stack, "hello there", key=ACME, **{"X-Min-Tier": "int8"})
    wait_until(lambda: stack.http.get("/v1/dead-letters").json()["total"] == 1, "the job has used up its attempts")
    int4.kill()
    for _ in range(20):
        ask(stack, "hard", **{"X-Min-Tier": "fp8"})
    lines = [line for block in blocks(PAGE, "text") for line in block.splitlines()]
    left = set(lines)

    def is_found() -> bool:
        done = BITLADDER.run("bitladder.cli.main", "top", env=stack.environment)
        assert "\tfp8\tno worker\t20\t" in done.stdout
        left.difference_update(done.stderr.splitlines())
        return not left

    wait_until(is_found, "all notes of the page are shown", 60)

    assert len(lines) == 4
    assert time.monotonic() - begun_s < 60


def test_the_routes_of_the_page_answer_as_it_says(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    stack.intake()
    (commands,) = blocks("docs/api/overview.md", "sh")

    done = subprocess.run(["bash", "-ec", here(commands, stack)], capture_output=True, text=True, check=True)

    decoder = json.JSONDecoder()
    overview, end = decoder.raw_decode(done.stdout)
    history, behind = decoder.raw_decode(done.stdout[end:])
    assert (overview["object"], history["object"]) == ("overview", "overview.history")
    assert history["resolution_s"] == 60
    assert done.stdout[end + behind :].startswith('event: sample\ndata: {"object":"overview"')


def test_the_table_of_the_page_is_what_the_sample_gives() -> None:
    raw = (ROOT / "tests/bitladder/overview/overview_sample.json").read_bytes()
    overview = msgspec.json.decode(raw, type=Overview)
    notes = [f"{note.severity}: {note.text}" for note in overview.notes]
    shown = blocks(PAGE, "console")[1].splitlines()

    assert [tuple(re.split(r" {2,}", line)) for line in shown[:4]] == [
        COLUMNS,
        *(row.cells for row in rows_of(overview)),
    ]
    assert shown[4:] == [*summary(overview), *notes]
