"""What an engine answers, read; and what is no answer is said to be none."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from calibration.errors import EngineFailedError, InputError
from calibration.evaluate.engine import Asker
from calibration.evaluate.measures.likelihood import Likelihood
from calibration.evaluate.measures.own_tasks import OwnTasks
from calibration.evaluate.task_file import Task
from tests.calibration.evaluate.chain import IdleEngine
from workers.engines.base import Answer, OnChunk
from workers.engines.errors import EngineFaultError


class Parrot(IdleEngine):
    """An engine that says what it was told to, whatever it is asked; it breaks at the prompt `break`."""

    def __init__(self, said: bytes) -> None:
        self.said = said
        self.asked = 0

    async def generate(self, endpoint: str, body: bytes, on_chunk: OnChunk | None) -> Answer:
        self.asked += 1
        await asyncio.sleep(0)
        if msgspec.json.decode(body)["prompt"] == "break":
            raise EngineFaultError("broken")
        return Answer(status=200, body=self.said)


@pytest.mark.parametrize("said", [b"", b"<html>", b"{}", b"[]", b'{"choices": []}', b'{"tokens": 3, "choices": null}'])
async def test_an_answer_that_is_not_vllm_s_is_the_engine_s_failure(said: bytes) -> None:
    asker = Asker(Parrot(said), "")

    with pytest.raises(EngineFailedError, match="the engine answered /tokenize oddly"):
        await asker.tokenize("x")
    with pytest.raises(EngineFailedError, match="the engine answered /v1/completions oddly"):
        await asker.complete("x", 1, [])
    with pytest.raises(EngineFailedError, match="the engine gave no log probabilities"):
        await asker.distributions([1, 2], 1)


async def test_a_position_without_predictions_is_the_engine_s_failure() -> None:
    asker = Asker(Parrot(b'{"choices": [{"prompt_logprobs": [null, null]}]}'), "")

    with pytest.raises(EngineFailedError, match="the engine gave no log probabilities"):
        await asker.distributions([1, 2], 1)


async def test_a_stream_without_a_token_is_the_engine_s_failure() -> None:
    with pytest.raises(EngineFailedError, match="ended a stream without a token"):
        await Asker(Parrot(b""), "").time("x", 1)


async def test_when_one_answer_fails_the_others_are_not_asked_for_any_more() -> None:
    engine = Parrot(b'{"choices": [{"text": "a"}]}')
    tasks = OwnTasks([Task(prompt=prompt, exact="a") for prompt in ("a", "break", *["a"] * 100)])

    with pytest.raises(EngineFailedError, match="did not answer /v1/completions: broken"):
        await tasks.take(Asker(engine, ""), lambda done, total: None)
    asked = engine.asked
    await asyncio.sleep(0.05)

    assert asked == engine.asked < 100


async def test_a_kind_of_text_without_two_tokens_is_the_user_s_to_change() -> None:
    asker = Asker(Parrot(b'{"tokens": [1]}'), "")

    with pytest.raises(InputError, match="held-out text of kind 'code' is too short"):
        await Likelihood("code", ["x", "y"], 100, 1).take(asker, lambda done, total: None)
