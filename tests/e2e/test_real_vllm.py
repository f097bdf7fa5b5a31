"""Real vLLM, the real model, two tiers: what a user sees from prompt to answer."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from openai import BadRequestError, OpenAI

from bitladder.cli.private_stack import PrivateStack, private_stack
from bitladder.client import Client
from tests.conftest import ROOT, wait_until
from tests.examples.operating.otlp_collector import Collector
from tests.integration.responses.open_responses import CHECKS, cut_short, failures

pytestmark = pytest.mark.vllm
PLACE: dict[str, object] = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}
CONFIG = """
[vllm]
python = "{python}"
args = [
  "--max-model-len", "1024", "--enforce-eager", "--max-num-seqs", "8", "--otlp-traces-endpoint", "{otlp}/v1/traces",
]
[vllm.env]
OTEL_EXPORTER_OTLP_TRACES_PROTOCOL = "http/protobuf"
OTEL_SERVICE_NAME = "vllm"
VLLM_ENABLE_V1_MULTIPROCESSING = "0"
VLLM_CPU_KVCACHE_SPACE = "1"
VLLM_CPU_OMP_THREADS_BIND = "nobind"
OMP_NUM_THREADS = "1"
[tracing]
enabled = true
endpoint = "{otlp}"
[cascade]
calibration = "calibration.json"
accept = 0.1
[models.smollm2]
tool_call_parser = "xlam"
[[models.smollm2.tiers]]
name = "int4"
price_per_hour = 0.70
checkpoint = "{{cache}}/smollm2/int4"
[[models.smollm2.tiers]]
name = "int8"
price_per_hour = 1.00
checkpoint = "{{cache}}/smollm2/int8"
"""
# So confidence is a twentieth of the mean margin in nats.
# Longer answers are judged by their beginning.
CURVE = {"after_tokens": 8, "margins": [0, 20], "confidences": [0, 1]}
CALIBRATION = {"format": 1, "statistic": "mean", "models": {"smollm2": {"int4": CURVE}}}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.stop()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[PrivateStack]:
    python = ROOT / ".venv-engine" / "bin" / "python"
    if not python.exists():
        message = "there is no .venv-engine: `make engine-env checkpoints` makes it"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    config = Path(tmp_path_factory.mktemp("config")) / "bitladder.toml"
    config.write_text(CONFIG.format(python=python, otlp=collector.url), encoding="utf-8")
    config.with_name("calibration.json").write_text(json.dumps(CALIBRATION), encoding="utf-8")
    with private_stack(str(config), {"worker.engine": "vllm"}) as stack:
        stack.wait_until_live(300, lambda _: None)
        yield stack


@pytest.fixture
def openai(stack: PrivateStack) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_a_simple_prompt_is_answered_by_the_lowest_tier(openai: OpenAI) -> None:
    answer = openai.completions.with_raw_response.create(
        model="smollm2", prompt="The capital of France is", max_tokens=8, temperature=0
    )

    completion = answer.parse()
    assert "Paris" in completion.choices[0].text
    assert completion.usage
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (5, 8)
    assert answer.headers["x-tier"] == answer.headers["x-floor"] == "int4"


def test_an_important_prompt_is_answered_by_the_highest_tier(openai: OpenAI) -> None:
    answer = openai.chat.completions.with_raw_response.create(
        model="smollm2",
        messages=[{"role": "user", "content": "What is 2+2?"}],
        max_tokens=16,
        temperature=0,
        extra_headers={"X-Priority": "9"},
    )

    assert "4" in (answer.parse().choices[0].message.content or "")
    assert answer.headers["x-tier"] == "int8"


def test_a_cascade_keeps_what_the_model_is_sure_of_and_asks_the_next_tier_for_the_rest(openai: OpenAI) -> None:
    asked = openai.completions.with_raw_response
    fields = {"model": "smollm2", "max_tokens": 8, "temperature": 0, "extra_headers": {"X-Cascade": "true"}}
    sure = asked.create(prompt="1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,", **fields)  # type: ignore[call-overload]
    unsure = asked.create(prompt="My favourite word is", **fields)  # type: ignore[call-overload]

    assert (sure.headers["x-tier"], unsure.headers["x-tier"]) == ("int4", "int8")
    assert 0.1 <= float(sure.headers["x-confidence"]) <= 1
    assert "x-confidence" not in unsure.headers  # int8 has no curve
    assert [answer.parse().choices[0].logprobs for answer in (sure, unsure)] == [None, None]


def test_an_answer_is_judged_as_it_is_written_and_is_the_one_that_the_engine_gives_without(stack: PrivateStack) -> None:
    count = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,"
    chat = {"messages": [{"role": "user", "content": f"Go on: {count}"}]}
    with Client(stack.url, timeout_s=120) as client:

        def ended(*, cascade: bool, **body: object) -> dict[str, Any]:
            job = client.submit({"model": "smollm2", "temperature": 0} | body, cascade=cascade)
            return client.wait(job["id"], timeout_s=120)

        for body in ({"prompt": count}, chat):
            # The first one is judged whole; of the second the beginning is judged, as it is written.
            jobs = [ended(max_tokens=24, **body, cascade=is_judged) for is_judged in (True, True, False)]
            assert [job["tier"] for job in jobs] == ["int4"] * 3
            assert [job["confidence"] is None for job in jobs] == [False, False, True]
            assert len({json.dumps(job["result"] | {"id": "", "created": 0}) for job in jobs}) == 1
        plain = ended(prompt="My favourite word is", max_tokens=200, max_tier="int4", cascade=False)
        handed = ended(prompt="My favourite word is", max_tokens=200, cascade=True)
        explained = httpx2.get(f"{stack.url}/v1/jobs/{handed['id']}/explain").json()

    assert (handed["tier"], handed["attempts"], handed["usage"]["completion_tokens"]) == ("int8", 2, 200)
    (lost,) = explained["executions"]
    assert (lost["tier"], lost["code"]) == ("int4", "low_confidence")
    assert lost["at"] - handed["enqueued_at"] < plain["run_ms"] / 2000


def test_a_prompt_may_come_with_tools(openai: OpenAI) -> None:
    answer = openai.chat.completions.create(
        model="smollm2",
        messages=[{"role": "user", "content": "What is the weather in Rome?"}],
        tools=[{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}],
        max_tokens=16,
        temperature=0,
    )

    message = answer.choices[0].message
    assert message.content or message.tool_calls  # so small a model calls none


def test_tokens_stream_as_they_come_and_the_job_tells_its_story(openai: OpenAI, stack: PrivateStack) -> None:
    with openai.chat.completions.with_streaming_response.create(
        model="smollm2",
        messages=[{"role": "user", "content": "Count from one to ten."}],
        max_tokens=16,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    ) as answer:
        lines = [line for line in answer.iter_lines() if line]
        job_id = answer.headers["x-job-id"]
    with Client(stack.url) as client:
        job = client.wait(job_id, timeout_s=30)

    assert lines[-1] == "data: [DONE]"
    assert len(lines) > 10
    assert job["status"] == "finished"
    assert job["text"]
    assert job["usage"]["completion_tokens"] == 16
    assert 0 < job["ttft_ms"] < job["run_ms"]
    assert job["cost"] > 0


def test_a_streamed_answer_s_record_is_the_unstreamed_one(stack: PrivateStack) -> None:
    body = {"model": "smollm2", "prompt": "One two three", "max_tokens": 8, "temperature": 0, "logprobs": 1}
    with Client(stack.url) as client:
        streamed, plain = (
            client.wait(client.submit(body | {"stream": stream})["id"], timeout_s=60) for stream in (True, False)
        )

    first, second = streamed["result"]["choices"][0], plain["result"]["choices"][0]
    assert (first["text"], first["finish_reason"]) == (second["text"], second["finish_reason"])
    assert first["logprobs"]["tokens"] == second["logprobs"]["tokens"]
    assert len(first["logprobs"]["token_logprobs"]) == 8
    assert streamed["usage"] == plain["usage"]
    assert streamed["usage"]["prompt_tokens"] > 0  # though nobody asked for it


def test_what_the_engine_refuses_is_the_user_s_error(openai: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="temperature"):
        openai.completions.create(model="smollm2", prompt="x", temperature=-1)


def test_the_engine_s_own_span_is_below_the_worker_s_in_the_client_s_trace(
    stack: PrivateStack, collector: Collector
) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    body = {"model": "smollm2", "prompt": "Hi", "max_tokens": 4, "ignore_eos": True}
    asked = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    for is_sampled, stream in ((True, False), (True, True), (False, False)):
        sent = asked if is_sampled else {"traceparent": asked["traceparent"][:-2] + "00"}
        httpx2.post(f"{stack.url}/v1/completions", json=body | {"stream": stream}, headers=sent, timeout=60)
    wait_until(lambda: len(collector.of_trace(trace)) >= 10, "two traces of five spans have come", 30)

    spans = collector.of_trace(trace)
    engine = [span for span in spans if span.service == "vllm"]
    assert [span.name for span in engine] == ["llm_request"] * 2
    assert [span.parent for span in engine] == [span.span for span in spans if span.name == "execute"]
    assert [span.attributes["gen_ai.usage.completion_tokens"] for span in engine] == [4, 4]
    assert len(spans) == 10


def test_a_cancelled_job_is_aborted_in_the_engine(stack: PrivateStack) -> None:
    with Client(stack.url) as client:
        job = client.submit({"model": "smollm2", "prompt": "Once", "max_tokens": 900, "ignore_eos": True})
        wait_until(lambda: client.result(job["id"])["status"] == "running", "the job runs in the engine")
        client.cancel(job["id"])
        over = client.wait(job["id"], timeout_s=10)

    assert over["status"] == "cancelled"
    assert over["tier"] == "int4"


def test_many_long_prompts_with_seeds_do_not_end_the_engine(stack: PrivateStack) -> None:
    """VLLM on a processor cannot wind back a seed where it reads a prompt in parts, and ends."""
    drawn = {"model": "smollm2", "max_tokens": 4, "temperature": 1.0}
    with Client(stack.url) as client:
        texts = [f"Chapter {number}. " + "The sea was calm and the ships lay still. " * 80 for number in range(12)]
        bodies = [drawn | {"prompt": text, "seed": 2**31 + number} for number, text in enumerate(texts)]
        engine = _engine_of(stack, "int4")
        jobs = [client.submit(body, max_tier="int4") for body in bodies]
        over = [client.wait(job["id"], timeout_s=180) for job in jobs]

    assert {(job["status"], job["attempts"]) for job in over} == {("finished", 1)}
    assert _engine_of(stack, "int4") == engine


def test_an_engine_that_is_killed_is_replaced_while_the_next_tier_serves(stack: PrivateStack) -> None:
    def live(tier: str) -> int:
        return int(httpx2.get(f"{stack.url}/readyz", timeout=5).json()["live_workers"]["smollm2"][tier])

    with Client(stack.url) as client:
        running = client.submit({"model": "smollm2", "prompt": "Once", "max_tokens": 200, "ignore_eos": True})
        wait_until(lambda: client.result(running["id"])["status"] == "running", "the job runs in the engine")

        os.kill(_engine_of(stack, "int4"), signal.SIGKILL)
        moved = client.wait(running["id"], timeout_s=120)
        wait_until(lambda: live("int4") == 1, "the engine is there again", 120)
        again = client.wait(client.submit({"model": "smollm2", "prompt": "Hi", "max_tokens": 2})["id"], timeout_s=60)

    # Who is in an engine that is lost pays no attempt: nobody knows on whose account it was.
    assert (moved["status"], moved["tier"], moved["attempts"]) == ("finished", "int8", 1)
    assert (again["status"], again["tier"]) == ("finished", "int4")


def test_a_greedy_answer_goes_on_in_the_next_execution_where_its_engine_was_killed(
    openai: OpenAI, stack: PrivateStack
) -> None:
    def ask() -> Iterator[str]:
        chunks = openai.chat.completions.create(
            model="smollm2",
            messages=[{"role": "user", "content": "Tell me about the sea, the sky and the ships between them."}],
            max_tokens=120,
            temperature=0,
            stream=True,
            extra_headers={"X-Max-Tier": "int4"},
            extra_body={"ignore_eos": True},
            timeout=200,
        )
        ids = set()
        for chunk in chunks:
            ids.add(chunk.id)
            yield chunk.choices[0].delta.content or ""
        assert len(ids) == 1

    whole = "".join(ask())
    interrupted = ask()
    before = [next(interrupted) for _ in range(40)]
    os.kill(_engine_of(stack, "int4"), signal.SIGKILL)
    after = list(interrupted)

    assert len(after) > 20
    assert "".join(before + after) == whole
    assert "stream begun anew" not in stack.tail("worker_int4", 100)


def test_the_engine_lets_go_within_a_second_of_what_a_client_has_left(openai: OpenAI, stack: PrivateStack) -> None:
    command = Path(f"/proc/{_engine_of(stack, 'int4')}/cmdline").read_bytes().split(b"\0")
    path = command[command.index(b"--uds") + 1].decode()

    def running() -> int:
        with httpx2.Client(transport=httpx2.HTTPTransport(uds=path), timeout=30) as engine:
            metrics = engine.get("http://engine/metrics").text
        found = re.search(r"^vllm:num_requests_running\{[^}]*\} ([0-9.]+)", metrics, re.MULTILINE)
        assert found
        return round(float(found[1]))

    body = {"model": "smollm2", "prompt": "Once", "max_tokens": 900, "ignore_eos": True, "stream": True}
    with Client(stack.url) as client, contextlib.ExitStack() as leaving:
        ids = [client.submit(body)["id"] for _ in range(3)]
        wait_until(lambda: running() == 3, "the others run", 60)
        answer = leaving.enter_context(httpx2.stream("POST", f"{stack.url}/v1/completions", json=body, timeout=60))
        next(answer.iter_lines())
        wait_until(lambda: running() == 4, "it runs")

        leaving.close()
        left_s = time.monotonic()
        wait_until(lambda: running() == 3, "it has left the engine")
        took_s = time.monotonic() - left_s
        for job_id in ids:
            client.cancel(job_id)

    assert took_s < 1


def test_an_engine_that_is_stopped_is_replaced_and_what_it_ran_is_run_again(stack: PrivateStack) -> None:
    with Client(stack.url) as client:
        running = client.submit({"model": "smollm2", "prompt": "Once", "max_tokens": 200, "ignore_eos": True})
        wait_until(lambda: client.result(running["id"])["status"] == "running", "the job runs in the engine")

        os.kill(_engine_of(stack, "int4"), signal.SIGSTOP)
        moved = client.wait(running["id"], timeout_s=120)

    assert (moved["status"], moved["attempts"]) == ("finished", 1)


def _engine_of(stack: PrivateStack, tier: str) -> int:
    found = 0
    for line in (stack.folder / f"worker_{tier}.log").read_text(encoding="utf-8").splitlines():
        if line.startswith("{") and (event := json.loads(line))["event"] == "engine started":
            found = int(event["pid"])  # the last one is running
    assert found, f"worker_{tier} has not said that it started an engine"
    return found


def test_the_routes_that_the_model_can_do_pass_through_and_the_others_are_refused_by_the_engine(
    openai: OpenAI, stack: PrivateStack
) -> None:
    question: dict[str, Any] = {"model": "smollm2", "messages": [{"role": "user", "content": "The capital of France?"}]}
    whole = openai.responses.create(model="smollm2", input="The capital of France?", max_output_tokens=8)
    events = list(openai.responses.create(model="smollm2", input="Hello", max_output_tokens=8, stream=True))
    with httpx2.Client(base_url=stack.url, timeout=60) as http:
        message = http.post("/v1/messages", json=question | {"max_tokens": 8}).json()
        stream = http.post("/v1/messages", json=question | {"max_tokens": 8, "stream": True}).text
        counted = http.post("/v1/messages/count_tokens", json=question).json()
        tokens = http.post("/tokenize", json={"model": "smollm2", "prompt": "The capital"}).json()
        text = http.post("/detokenize", json={"model": "smollm2", "tokens": tokens["tokens"]}).json()
        version = http.get("/version").json()
        refused = http.post("/v1/embeddings", json={"model": "smollm2", "input": "a"})
        job = http.get(f"/v1/jobs/{refused.headers['x-job-id']}").json()

    assert (whole.status, whole.usage and whole.usage.output_tokens) == ("incomplete", 8)
    assert [event.type for event in events][:: len(events) - 1] == ["response.created", "response.incomplete"]
    assert message["stop_reason"] == "max_tokens"
    assert stream.startswith("event: message_start\n")
    assert stream.endswith('event: message_stop\ndata: {"type":"message_stop"}\n\n')
    assert counted["input_tokens"] == message["usage"]["input_tokens"]
    assert text == {"prompt": "The capital"}
    assert version["version"]
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "unsupported_route")
    # The next tier's where the lowest one's engine is being started again, after another test has killed it.
    assert (job["attempts"], job["floor"]) == (1, "int4")


def test_responses_fit_their_specification_and_are_continued_in_the_background(
    openai: OpenAI, stack: PrivateStack
) -> None:
    # The model sees no pictures, seldom calls a tool, and ends some answers at one precision but not at another.
    checks = [cut_short(check) for check in CHECKS if check.name not in ("image input", "tool calling")]
    with httpx2.Client(base_url=stack.url, timeout=120) as http:
        found = {check.name: failures(http, check, temperature=0) for check in checks}
    asked: dict[str, Any] = {"model": "smollm2", "max_output_tokens": 16, "temperature": 0}
    first = openai.responses.create(**asked, input="Remember the word papaya.")
    stream = openai.responses.create(
        **asked, input="Which word?", previous_response_id=first.id, background=True, stream=True
    )
    events = [next(stream) for _ in range(5)]
    stream.close()
    response_id = events[0].response.id
    events += openai.responses.retrieve(response_id, stream=True, starting_after=4)
    second = openai.responses.retrieve(response_id)
    called = openai.responses.create(
        **asked | {"max_output_tokens": 64},
        input="What is the weather in Rome?",
        tools=[{"type": "function", "name": "weather", "parameters": PLACE, "strict": False}],
        tool_choice={"type": "function", "name": "weather"},
    )

    assert {name: wrong for name, wrong in found.items() if wrong} == {}
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == second.output_text
    assert second.usage
    assert first.usage
    assert second.usage.input_tokens > first.usage.input_tokens + first.usage.output_tokens
    assert [item.type for item in called.output] == ["function_call"]
