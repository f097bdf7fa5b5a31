"""Labels by engines whose probabilities are known; a run that ends anywhere goes on where it was."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from calibration.control.labelling.label_journal import Journal
from calibration.control.labelling.label_losses import TierLabel
from calibration.control.labelling.label_prompts import Check, LabelPrompt
from calibration.control.labelling.run_labelling import Labeller, LabelOptions
from calibration.errors import EngineFailedError, InputError
from calibration.evaluate.engine import Asker
from calibration.evaluate.task_file import Task
from tests.calibration.evaluate.chain import Chain
from workers.engines.base import Answer, OnChunk

PROMPTS = [LabelPrompt(text, "here", "letters", chat=False) for text in ("abcdef", "bcdefgh", "cdefghi")]
OPTIONS = LabelOptions(answer_tokens=4, top=2)


class Breaking(Chain):
    """Answers no prompt that begins with c."""

    async def generate(self, endpoint: str, body: bytes, on_chunk: OnChunk | None) -> Answer:
        if endpoint == "/v1/completions" and b'"prompt":[99,' in body:
            return Answer(status=400, body=b"broken")
        return await super().generate(endpoint, body, on_chunk)


class Chains:
    """Engines that are always there, by tier."""

    def __init__(self, *, side_by_side: bool = False, **chains: Chain) -> None:
        self.chains, self.side_by_side, self.tiers = chains, side_by_side, tuple(chains)
        self.digests = {tier: f"digest of {tier}" for tier in chains}

    def checkpoint(self, tier: str) -> str:
        return self.digests[tier]

    def engine(self, tier: str) -> dict[str, Any]:
        return {"name": tier}

    def spent(self) -> None:
        return None

    @asynccontextmanager
    async def asking(self, tier: str) -> AsyncIterator[Asker]:
        yield Asker(self.chains[tier], "")

    def asked(self) -> int:
        return sum(len(chain.asked) for chain in self.chains.values())


async def label(path: Path, askers: Chains, prompts: list[LabelPrompt] = PROMPTS, **more: Any) -> Labeller:  # noqa: ANN401
    tiers = [tier for tier in askers.tiers if tier != "top"]
    with Journal.opened(path) as journal:
        labeller = Labeller(askers=askers, reference="top", tiers=tiers, options=OPTIONS, journal=journal, **more)
        await labeller.run(prompts)
    return labeller


@pytest.mark.parametrize("side_by_side", [False, True])
async def test_a_tier_that_goes_on_alike_loses_nothing_and_another_one_what_is_computed(
    tmp_path: Path, side_by_side: bool
) -> None:
    askers = Chains(side_by_side=side_by_side, same=Chain(), low=Chain({"h": "j"}), top=Chain())
    labeller = await label(tmp_path / "journal", askers)
    first = labeller.measured(PROMPTS[0])  # abcdef is answered with ghij: after h comes i, and low says j

    assert first["same"].answer is not None
    assert (first["same"].answer.kl, first["same"].answer.flips) == (0, 0)
    # There the reference has i 0.75 and j 0.25, and low j 0.75 and k 0.25: j stays apart, all else is one.
    answer = first["low"].answer
    assert answer is not None
    assert (answer.flips, answer.first_divergence, answer.tokens) == (0.25, 2, 4)
    assert 4 * answer.kl == pytest.approx(0.25 * math.log(1 / 3) + 0.75 * math.log(3), rel=1e-4)
    assert answer.kl_halves == pytest.approx((0, 2 * answer.kl), rel=1e-4)
    assert first["low"].own_answer is not None
    assert first["low"].own_answer.margin == pytest.approx(math.log(0.75 / 0.25), rel=1e-3)
    assert not labeller.failures


async def test_further_answers_of_a_prompt_have_the_loss_alone_and_a_run_goes_on_with_them(tmp_path: Path) -> None:
    askers = Chains(low=Chain({"h": "j"}), top=Chain())
    await label(tmp_path / "journal", askers)
    asked = {tier: len(chain.asked) for tier, chain in askers.chains.items()}
    turns = [turn for prompt in PROMPTS for turn in prompt.turns(3)]
    labeller = await label(tmp_path / "journal", askers, turns)
    first, *others = (labeller.measured(turn)["low"] for turn in turns[:3])

    assert [other == TierLabel(answer=first.answer) for other in others] == [True, True]  # chains do not draw
    assert first.own_answer is not None
    more = {tier: len(chain.asked) - asked[tier] for tier, chain in askers.chains.items()}
    # Of each further answer: predictions; tokens, the answer and predictions. And once, how it spells, and its context.
    assert more == {"low": 6 + 1, "top": 18 + 1}
    assert len({turn.seed for turn in turns}) == 9


async def test_a_run_that_is_complete_asks_nothing_and_a_new_checkpoint_is_measured(tmp_path: Path) -> None:
    askers = Chains(low=Chain({"h": "x"}), top=Chain())
    before = (await label(tmp_path / "journal", askers)).measured(PROMPTS[0])
    asked = askers.asked()
    await label(tmp_path / "journal", askers)
    assert askers.asked() == asked

    askers.digests["low"], askers.chains["low"] = "another", Chain()
    of_top = len(askers.chains["top"].asked)
    labeller = await label(tmp_path / "journal", askers)

    assert len(askers.chains["top"].asked) == of_top  # its answers hold
    assert before["low"].answer != labeller.measured(PROMPTS[0])["low"].answer


async def test_answers_that_were_dropped_are_asked_for_again_only_for_a_new_tier(tmp_path: Path) -> None:
    askers = Chains(low=Chain(), top=Chain())
    await label(tmp_path / "journal", askers)
    with Journal.opened(tmp_path / "journal") as journal:
        journal.drop_answers()
        assert not any(record.prompt or record.rows or record.text for record in journal.references.values())
    asked = len(askers.chains["low"].asked)
    more = Chains(low=askers.chains["low"], mid=Chain(), top=askers.chains["top"])
    more.digests |= askers.digests
    labeller = await label(tmp_path / "journal", more)

    assert len(askers.chains["low"].asked) == asked
    assert all(set(labeller.measured(prompt)) == {"low", "mid"} for prompt in PROMPTS)


async def test_a_prompt_that_a_tier_cannot_answer_is_left_for_the_next_run(tmp_path: Path) -> None:
    askers = Chains(low=Breaking(), top=Chain())
    labeller = await label(tmp_path / "journal", askers)
    assert list(labeller.failures) == [f"{PROMPTS[2].id} low"]
    assert [len(labeller.missing(prompt)) for prompt in PROMPTS] == [0, 0, 1]

    askers.chains["low"] = Chain()
    labeller = await label(tmp_path / "journal", askers)
    assert not labeller.failures
    assert not any(map(labeller.missing, PROMPTS))


async def test_a_prompt_that_fails_with_all_of_its_answers_does_not_end_the_run(tmp_path: Path) -> None:
    turns = [turn for prompt in PROMPTS for turn in prompt.turns(16)]
    labeller = await label(tmp_path / "journal", Chains(low=Breaking(), top=Chain()), turns)

    assert len(labeller.failures) == 16
    assert [len(labeller.missing(turn)) for turn in turns] == [0] * 32 + [1] * 16


async def test_an_engine_that_fails_on_everything_ends_the_run(tmp_path: Path) -> None:
    prompts = [LabelPrompt(f"c{letter}defgh", "here", "letters", chat=False) for letter in "abcdefghijkl"]
    with pytest.raises(
        EngineFailedError, match=r"low: 8 prompts failed one after another, the last one: .* 400: broken"
    ):
        await label(tmp_path / "journal", Chains(low=Breaking(), top=Chain()), prompts)


async def test_a_tier_that_spells_text_in_other_tokens_is_refused(tmp_path: Path) -> None:
    class Shifted(Chain):
        async def generate(self, endpoint: str, body: bytes, on_chunk: OnChunk | None) -> Answer:
            if endpoint == "/tokenize":
                body = body.replace(b"cde", b"zzz")
            return await super().generate(endpoint, body, on_chunk)

    short = LabelPrompt("ab", "here", "letters", chat=False)  # says nothing of how a tier spells
    with pytest.raises(EngineFailedError, match="tier low reads text as other tokens than top"):
        await label(tmp_path / "journal", Chains(low=Shifted(), top=Chain()), [short, PROMPTS[0]])


async def test_a_prompt_that_was_cut_does_not_look_like_other_tokens(tmp_path: Path) -> None:
    long = LabelPrompt("the quick brown fox jumps over the lazy dog. " * 10, "here", "letters")
    labeller = await label(tmp_path / "journal", Chains(low=Chain(), top=Chain(context_tokens=60)), [long])
    assert not labeller.missing(long)


async def test_a_task_is_judged_by_the_tier_s_own_answer(tmp_path: Path) -> None:
    check = Check(task=Task(prompt="abcdef", contains="hi", max_tokens=5))
    prompt = LabelPrompt("abcdef", "here", "letters", chat=False, check=check)
    labeller = await label(tmp_path / "journal", Chains(low=Chain({"h": "x"}), top=Chain()), [prompt])
    answered, low = labeller.answered(prompt), labeller.measured(prompt)["low"]

    assert answered is not None
    assert answered.task is not None
    assert low.task is not None
    assert (answered.task.wrong, low.task.wrong, low.task.rule) == (0, 1, "contains")


async def test_a_line_that_was_cut_off_is_measured_again_and_a_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    await label(path, Chains(low=Chain(), top=Chain()))
    whole = path.read_bytes()
    for cut in (1, 30, len(whole.splitlines()[-1])):
        path.write_bytes(whole[:-cut])
        labeller = await label(path, Chains(low=Chain(), top=Chain()))
        assert not any(map(labeller.missing, PROMPTS))
        assert sorted(path.read_bytes().splitlines()) == sorted(whole.splitlines())

    path.write_bytes(b'{"prompt": "mine"}\n')
    with pytest.raises(InputError, match="journal:1: no record of a labelling run"):
        await label(path, Chains(low=Chain(), top=Chain()))


def test_two_runs_do_not_write_one_journal(tmp_path: Path) -> None:
    with (
        Journal.opened(tmp_path / "journal"),
        pytest.raises(InputError, match="another run writes"),
        Journal.opened(tmp_path / "journal"),
    ):
        pass
