"""calibration/control/canary: what a canary changes, where its prompts go, what it is guarded by. No stack."""

from __future__ import annotations

import http.server
import json
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bitladder.settings.live_values import NO_LIVE, LiveDocument, changed
from bitladder.settings.live_values import Change as LiveChange
from bitladder.settings.load import Loaded
from calibration.control.canary.canary_prompts import CanaryPrompt, PromptSource
from calibration.control.canary.canary_stack import CanaryStack
from calibration.control.canary.canary_words import now_in_words, times_in_words
from calibration.control.canary.comparing import Comparison, ModelTier, Pair
from calibration.control.canary.guards import failure_problem, overview_problem
from calibration.control.canary.pair_journal import CanaryState, HeldError, Journal, Phase, read_pairs
from calibration.control.canary.pair_placing import Placing, resolved
from calibration.control.canary.spec import Change, Measure, Spec, give, is_given, is_promoted, promote, take_back
from calibration.errors import EngineFailedError, InputError
from tests.conftest import make_settings

URL = "redis://127.0.0.1:1/0"
NEXT = {"tiers": [{"name": tier} for tier in ("int4", "int8", "fp8")], "tool_call_parser": "hermes"}
SETTINGS = make_settings(URL, models__next=NEXT)
SPEC = Spec(model="smollm2", candidate="next", reference="fp8")
POLICY = Spec(model="smollm2", policy="fixed:fp8", current_policy="article", reference="fp8")


def test_a_share_is_one_setting_of_a_model_or_a_split_of_its_policy_and_both_are_taken_back() -> None:
    canary = "models.smollm2.canary"

    assert give(SPEC) == Change({canary: {"model": "next", "share": 0.1}})
    assert take_back(SPEC, None, was_live=False).values[canary]["share"] == 0
    assert promote(SPEC).values[canary] == {"model": "next", "share": 1.0, "drawn_by": "request"}
    assert give(POLICY).values["policies.canary.shares"] == {"fixed:fp8": 0.1, "article": 0.9}
    assert take_back(POLICY, "article", was_live=True).values == {"models.smollm2.policy": "article"}
    assert promote(POLICY).values == {"models.smollm2.policy": "fixed:fp8"}
    value = {"model": "next", "share": 0.1, "salt": "", "drawn_by": "key"}
    assert is_given(SPEC, value)
    assert not is_given(SPEC, value | {"share": 0})
    assert is_promoted(SPEC, value | {"share": 1})
    assert is_given(POLICY, "canary")
    assert not is_given(SPEC, None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "gpt"}, "--model must be one of smollm2, next, got 'gpt'"),
        ({"candidate": "gpt"}, "--candidate must be one of smollm2, next, got 'gpt'"),
        ({"candidate": ""}, "name either --candidate, another model, or --policy"),
        ({"reference": "bf16"}, "--reference must be one of int4, int8, fp8, got 'bf16'"),
        ({"tier": "bf16"}, "--tier must be one of int4, int8, fp8, got 'bf16'"),
        ({"candidate": "", "policy": "article", "tier": "int4"}, "--tier compares two models"),
    ],
)
def test_what_the_stack_does_not_have_is_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        resolved(msgspec.structs.replace(SPEC, **changes), SETTINGS)


def test_a_prompt_is_compared_where_the_policy_of_each_side_sends_it() -> None:
    prompt = CanaryPrompt("Hi", chat=False)

    assert Placing(SPEC, SETTINGS).places(prompt) == (ModelTier("smollm2", "int4"), ModelTier("next", "int4"))
    assert Placing(POLICY, SETTINGS).places(prompt) == (ModelTier("smollm2", "int4"), ModelTier("smollm2", "fp8"))
    at_int8 = msgspec.structs.replace(SPEC, tier="int8")
    assert Placing(at_int8, SETTINGS).places(prompt) == (ModelTier("smollm2", "int8"), ModelTier("next", "int8"))
    assert resolved(Spec(model="smollm2", policy="fixed:fp8"), SETTINGS).current_policy == "article"
    with pytest.raises(InputError, match=r"^--policy: models\.smollm2\.policy fixed:int2: [^\n]*$"):
        Placing(msgspec.structs.replace(POLICY, policy="fixed:int2"), SETTINGS)


def test_live_settings_take_the_share_of_a_policy_and_nothing_of_it_is_left() -> None:
    loaded = Loaded(settings=SETTINGS, sources={}, release_file=None, config_file=Path("bitladder.toml"))

    def order(before: LiveDocument, change: Change) -> tuple[LiveDocument, str | None]:
        asked = LiveChange(values=change.values, unset=change.unset, author="ann", at=1.0)
        document, live = changed(loaded, before, asked)
        assert live.settings.policies.keys() == ({"canary"} if change == give(POLICY) else set())
        return document, live.settings.models["smollm2"].policy

    document, policy = order(NO_LIVE, give(POLICY))
    assert policy == "canary"
    assert order(document, take_back(POLICY, None, was_live=False))[1] is None
    assert order(document, promote(POLICY))[1] == "fixed:fp8"


def overview(**tier: Any) -> dict[str, Any]:  # noqa: ANN401
    usual = {"tier": "int4", "workers": 1, "breaker": "closed", "shifted": False, "expected_wait_s": None}
    return {"models": [{"model": "next", "tiers": [usual | tier]}]}


@pytest.mark.parametrize(
    ("tier", "words"),
    [
        ({}, ""),
        ({"workers": 0}, "next has no live worker"),
        ({"breaker": "open"}, "too many jobs break at next int4"),
        ({"shifted": True}, "too many jobs break at next int4"),
        ({"expected_wait_s": 31.0}, "a job would wait 31 s for next int4, the limit is 30 s"),
    ],
)
def test_the_overview_says_what_is_wrong_with_a_candidate(tier: dict[str, Any], words: str) -> None:
    assert overview_problem(SPEC, overview(**tier)) == words


def test_failed_jobs_count_that_are_of_others_and_of_this_canary() -> None:
    failed = [{"tags": (), "created_at": 100.0}] * 5
    measuring, former = {"tags": ["canary"], "created_at": 100.0}, {"tags": [], "created_at": 1.0}

    assert failure_problem(SPEC, failed, 50, 20) == "5 of 20 requests failed at next, the limit is 5.0%"
    assert failure_problem(SPEC, failed, 50, 200) == ""
    assert failure_problem(SPEC, [*failed[:4], measuring, former], 50, 4) == ""
    assert failure_problem(POLICY, failed, 50, 0) == ""


def test_thousands_of_failures_are_all_counted(tmp_path: Path) -> None:
    class Intake(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = int(self.path.partition("after=")[2].partition("&")[0] or 0)
            rows = [{"tags": [], "created_at": 100.0}] * 200
            listed = {"data": rows, "has_more": page < 9, "next_cursor": str(page + 1)}
            content = json.dumps(overview() if "overview" in self.path else listed).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            del arguments

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Intake) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        with CanaryStack(f"http://127.0.0.1:{server.server_address[1]}") as stack:
            problem, none = (stack.problem(SPEC, 50, touched) for touched in (10_000, 100_000))
        server.shutdown()

    assert (problem, none) == ("800 of 10000 requests failed at next, the limit is 5.0%", "")


@pytest.mark.parametrize(
    ("spec", "phase", "before", "words"),
    [
        (SPEC, "rolled back", (None, False), "all requests for smollm2 are answered by smollm2 again (what it"),
        (POLICY, "rolled back", (None, False), "all requests for smollm2 go by policy article again. Nothing"),
        (SPEC, "promoted", (None, False), """set 'models.smollm2.canary={"model": "next", "share": 0.0}'`."""),
        (POLICY, "promoted", (None, False), "The way back: `bitladder settings unset models.smollm2.policy`."),
        (
            POLICY,
            "promoted",
            ("article", True),
            """The way back: `bitladder settings set 'models.smollm2.policy="article"'`.""",
        ),
        (
            SPEC,
            "awaits promotion",
            (None, False),
            "10% of the keys go to model next until 1970-01-01 00:01:40 UTC, and",
        ),
        (SPEC, "awaits promotion", (None, False), "`bitladder calibrate canary promote -o var/c` gives it everything"),
    ],
)
def test_a_report_says_what_serves_now_and_what_is_left_to_do(
    spec: Spec, phase: Phase, before: tuple[object, bool], words: str
) -> None:
    state = CanaryState(
        spec=spec, prompts="p", started_at=1, phase=phase, policy_before=before, leased_until=100, decided_at=61
    )

    assert words in now_in_words(state, "var/c")
    assert times_in_words(state) == {"begun": "1970-01-01 00:00:01 UTC", "decided": "1970-01-01 00:01:01 UTC"}


def test_a_file_that_can_decide_nothing_is_refused_before_a_share_is_given(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "a"}\n{"prompt": "b", "check": {"exact": "c"}}\n')
    source = PromptSource(file, {"next"}, 0)

    assert (source.count(checked=False), source.count(checked=True)) == (2, 1)
    file.write_text('{"prompt": "a"}\n{"prompt": "def f():", "check": {"code": {"test": "", "entry_point": "f"}}}\n')
    assert source.count(checked=False) == 2
    with pytest.raises(InputError, match="has no prompt with a check"):
        source.count(checked=True)
    assert PromptSource(tmp_path, {"next"}, 0).count(checked=True) is None


def test_prompts_come_in_an_order_by_chance_and_captured_ones_as_they_are_written(tmp_path: Path) -> None:
    file, folder = tmp_path / "prompts.jsonl", tmp_path / "captured"
    file.write_text('{"prompt": "a"}\n{"text": "b", "chat": false, "check": {"exact": "c"}}\n{"prompt": "a"}\n')
    folder.mkdir()
    line = {"model": "next", "endpoint": "/v1/chat/completions", "prompt": "x"}
    written = [line, {"id": "1", "served": "int4"}, line | {"model": "other", "prompt": "y"}]
    (folder / "1.jsonl").write_text("\n".join(map(json.dumps, written)) + '\n{"model": "next", "prom')

    source = PromptSource(file, {"next"}, 0)
    prompts = {prompt.text: prompt for prompt in source.new(())}
    assert set(prompts) == {"a", "b"}
    assert prompts["b"].check is not None
    assert source.new({prompts["a"].id}) == [prompts["b"]]
    captured = PromptSource(folder, {"next", "smollm2"}, 0)
    assert captured.new(()) == [CanaryPrompt("x", chat=True)]
    assert (captured.grows, source.grows) == (True, False)
    file.write_text('{"prompt": "a", "check": {"exact": 1}}\n')
    with pytest.raises(InputError, match=r'prompts.jsonl:1: "check" must be a rule of own tasks'):
        source.new(())
    with pytest.raises(InputError, match="--prompts must be a file of prompts or a folder"):
        PromptSource(tmp_path / "none", {"next"}, 0)


class Said:
    """An asker whose answers are set; '!': it fails."""

    def __init__(self, text: str) -> None:
        self.text = text

    async def tokenize(self, text: str, *, as_prompt: bool) -> list[int]:
        assert as_prompt
        return [len(text)]

    async def write(self, tokens: list[int], max_tokens: int, stops: tuple[str, ...], top: int) -> Any:  # noqa: ANN401
        del tokens, max_tokens, stops, top
        if self.text == "!":
            raise EngineFailedError("it broke")
        return type("Written", (), {"tokens": [1], "text": self.text})


async def test_a_side_that_is_wrong_or_fails_loses_all_and_who_is_asked_first_is_drawn(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(
        "\n".join(json.dumps({"prompt": f"p{i}", "chat": False, "check": {"exact": "4"}}) for i in range(30))
    )
    prompts = PromptSource(file, (), 0).new(())
    spec = msgspec.structs.replace(SPEC, measure=Measure.TASK)
    now, other, broken = ModelTier("smollm2", "int4"), ModelTier("next", "int4"), ModelTier("next", "int8")
    askers: Any = {
        ModelTier("smollm2", "fp8"): Said("4"), now: Said("4"), other: Said("5"), broken: Said("!"),
    }  # fmt: skip
    comparison = Comparison(spec, askers)

    pairs = [await comparison.pair(prompt, (now, other)) for prompt in prompts]
    assert {pair.losses for pair in pairs} == {(0.0, 1.0)}
    assert 5 <= sum(pair.candidate_first for pair in pairs) <= 25
    failed = await comparison.pair(prompts[0], (now, broken))
    assert (failed.difference, failed.failed) == (1.0, ("", "it broke"))
    assert (await comparison.pair(prompts[0], (now, now))).losses == (0.0, 0.0)
    assert (await comparison.pair(CanaryPrompt("q", chat=False), (now, other))).skipped == "it has no check"
    mute = Comparison(spec, askers | {ModelTier("smollm2", "fp8"): Said("!")})
    assert (await mute.pair(prompts[0], (now, other))).has_no_reference


def test_pairs_are_on_disk_and_a_line_that_was_cut_off_is_taken_away(tmp_path: Path) -> None:
    pair = Pair(id="1", places=("a:b", "c:d"), losses=(0.1, 0.3))
    with Journal.opened(tmp_path) as journal:
        journal.add([pair, Pair(id="2", places=("a:b", "c:d"), skipped="it has no check")])
        with pytest.raises(HeldError, match="another process runs the canary"), Journal.opened(tmp_path):
            pass
    with (tmp_path / "pairs.jsonl").open("ab") as file:
        file.write(b'{"id": "3", "pla')

    with Journal.opened(tmp_path) as journal:
        assert journal.pairs[0] == pair
        assert journal.differences == pytest.approx([0.2])
        journal.add([pair])
    assert [read.id for read in read_pairs(tmp_path)] == ["1", "2", "1"]
    (tmp_path / "pairs.jsonl").write_text("[]\n")
    with pytest.raises(InputError, match=r"pairs\.jsonl:1: no pair of a canary"):
        read_pairs(tmp_path)
