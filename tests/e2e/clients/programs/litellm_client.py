"""LiteLLM's library: chat, responses, embeddings, text completions, files and batches."""

from __future__ import annotations

import io
import json
import time
from typing import Any

import litellm
from checks import MODEL, URL, check, run_checks

TEXT = "a paper clip holds pages together"
NAME = f"openai/{MODEL}"


@check
def chat() -> None:
    messages = [{"role": "user", "content": TEXT}]
    assert litellm.completion(model=NAME, messages=messages, max_tokens=8).choices[0].message.content
    chunks = litellm.completion(model=NAME, messages=messages, max_tokens=8, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


@check
def responses() -> None:
    answer: Any = litellm.responses(model=NAME, input=TEXT, max_output_tokens=16)
    assert answer.output


@check
def responses_streamed() -> None:
    events: Any = litellm.responses(model=NAME, input=TEXT, max_output_tokens=16, stream=True)
    kinds = [event.type for event in events]
    assert kinds[-1] in ("response.completed", "response.incomplete")


@check
def responses_read_again() -> None:
    answer: Any = litellm.responses(model=NAME, input=TEXT, max_output_tokens=16)
    again: Any = litellm.get_responses(response_id=answer.id, custom_llm_provider="openai")
    assert again.output
    litellm.delete_responses(response_id=answer.id, custom_llm_provider="openai")


@check
def embeddings() -> None:
    assert len(litellm.embedding(model=NAME, input=[TEXT, "another"]).data) == 2


@check
def text_completions() -> None:
    assert litellm.text_completion(model=f"text-completion-openai/{MODEL}", prompt=TEXT, max_tokens=8).choices[0].text


@check
def messages_of_anthropic() -> None:
    answer: Any = litellm.completion(
        model=f"anthropic/{MODEL}",
        api_base=URL.removesuffix("/v1"),
        api_key="none",
        messages=[{"role": "user", "content": TEXT}],
        max_tokens=8,
    )
    assert answer.choices[0].message.content


@check
def batches() -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": TEXT}], "max_tokens": 4}
    lines = [
        json.dumps({"custom_id": str(n), "method": "POST", "url": "/v1/chat/completions", "body": body})
        for n in range(5)
    ]
    data = ("in.jsonl", io.BytesIO("\n".join(lines).encode()))
    uploaded: Any = litellm.create_file(file=data, purpose="batch", custom_llm_provider="openai")
    batch: Any = litellm.create_batch(
        completion_window="24h",
        endpoint="/v1/chat/completions",
        input_file_id=uploaded.id,
        custom_llm_provider="openai",
    )
    end = time.monotonic() + 60
    while batch.status != "completed":
        assert time.monotonic() < end, batch
        time.sleep(0.1)
        batch = litellm.retrieve_batch(batch_id=batch.id, custom_llm_provider="openai")
    assert batch.request_counts.completed == 5


if __name__ == "__main__":
    run_checks()
