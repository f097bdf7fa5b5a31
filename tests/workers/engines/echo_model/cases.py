"""Requests that the echo engine and a real vLLM get alike. Both end for the same reason, whatever their words are."""

from __future__ import annotations

from typing import Any

C, H = "/v1/completions", "/v1/chat/completions"
Body = dict[str, Any]
MAX_MODEL_LEN = 1024
SCHEMA = {
    "type": "object",
    "properties": {"count": {"type": "integer", "minimum": 1, "maximum": 3}, "kind": {"enum": ["low", "high"]}},
    "required": ["count", "kind"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "set_level", "parameters": SCHEMA, "strict": True}}
_PNG = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
_USAGE = {"stream": True, "stream_options": {"include_usage": True}}
_RUNNING = {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
_TWO = {"n": 2, "temperature": 1, "seed": 1}
_IDS = {"return_tokens_as_token_ids": True}
_NAMED = {"type": "function", "function": {"name": "set_level"}}


def _completion(prompt: object = "One two three", **more: object) -> tuple[str, Body]:
    return C, {"model": "smollm2", "prompt": prompt, "max_tokens": 2, "temperature": 0, "ignore_eos": True} | more


def _chat(*content: object, **more: object) -> tuple[str, Body]:
    messages = [{"role": "user", "content": text} for text in content or ("One two three",)]
    return H, {"model": "smollm2", "messages": messages, "max_tokens": 2, "temperature": 0, "ignore_eos": True} | more


def _form(**more: object) -> Body:
    return {"max_tokens": 60, "ignore_eos": False} | more


def _talk(*messages: object) -> tuple[str, Body]:
    return H, {"model": "smollm2", "messages": messages, "max_tokens": 2, "ignore_eos": True}


ANSWERED = {
    "completion": _completion(),
    "completion, streamed": _completion(stream=True),
    "completion, token counts": _completion(**_USAGE),
    "completion, running token counts": _completion(**_RUNNING),
    "completion, default length": (C, {"model": "smollm2", "prompt": "One two", "ignore_eos": True}),
    "completion, unknown field": _completion(unheard_of=1, best_of=2),
    "completion, number as text": _completion(max_tokens="2"),
    "prompts": _completion(["One", "Two words"]),
    "prompts, choices": _completion(["One", "Two"], **_TWO),
    "prompts, choices, streamed": _completion(["One", "Two"], **_TWO, **_USAGE),
    "tokens": _completion([5, 6, 7]),
    "lists of tokens": _completion([[5, 6], [7]]),
    "stop": _completion("1 2 3 4 5 6 7", max_tokens=20, stop=" "),
    "stop, a list": _completion("1 2 3 4 5 6 7", max_tokens=20, stop=["never seen", " "]),
    "stop, streamed": _completion("2 1 2 1 2 1 2 1 2", max_tokens=20, stop=["1"], stream=True),
    "stop, included": _completion("1 2 3 4 5 6 7", max_tokens=20, stop=" ", include_stop_str_in_output=True),
    "echo": _completion(echo=True),
    "echo alone": _completion(echo=True, max_tokens=0),
    "echo, log probabilities": _completion(echo=True, logprobs=1),
    "echo, streamed": _completion(echo=True, logprobs=1, stream=True),
    "log probabilities": _completion(logprobs=2),
    "log probabilities of what was said": _completion(logprobs=0),
    "log probabilities, streamed": _completion(logprobs=2, stream=True),
    "log probabilities by ids": _completion(logprobs=2, **_IDS),
    "log probabilities of a prompt": _completion(prompt_logprobs=1),
    "log probabilities of a prompt of tokens": _completion([5, 6, 7], prompt_logprobs=0, return_token_ids=True),
    "token ids": _completion(return_token_ids=True),
    "token ids, streamed": _completion(return_token_ids=True, stream=True),
    "choice": _completion(**_form(structured_outputs={"choice": ["yes", "no"]})),
    "regex": _completion(**_form(structured_outputs={"regex": "a{3}b"})),
    "schema as vLLM names it": _chat(**_form(structured_outputs={"json": SCHEMA})),
    "chat": _chat(),
    "chat, streamed": _chat(stream=True),
    "chat, token counts": _chat(**_USAGE),
    "chat, running token counts": _chat(**_RUNNING),
    "chat, to its end": _chat("Say hi", max_tokens=200, ignore_eos=False),
    "chat, max_completion_tokens": _chat(max_completion_tokens=1, max_tokens=5),
    "chat, choices": _chat(**_TWO),
    "chat, choices, streamed": _chat(**_TWO, **_USAGE),
    "chat, no choice named": _chat(n=None),
    "chat, stop, streamed": _chat("Say: one two three", max_tokens=60, stop=[" "], stream=True),
    "chat, log probabilities": _chat(logprobs=True, top_logprobs=2),
    "chat, log probabilities, streamed": _chat(logprobs=True, top_logprobs=2, stream=True),
    "chat, log probabilities of what was said": _chat(logprobs=True),
    "parts": _chat([{"type": "text", "text": "One"}, {"type": "text", "text": "two"}]),
    "empty content": _chat(""),
    "a tool's answer": _talk(
        {"role": "user", "content": "level?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "set_level", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "it is low"},
    ),
    "schema": _chat(**_form(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}})),
    "tools, none": _chat(tools=[TOOL], tool_choice="none"),
    "tools, left to the model": _chat(tools=[TOOL]),
    "tools, required": _chat(tools=[TOOL], tool_choice="required", max_tokens=100, ignore_eos=False),
    "tools, named": _chat(tools=[TOOL], tool_choice=_NAMED, max_tokens=100, ignore_eos=False),
    "tools, streamed": _chat(tools=[TOOL], tool_choice="required", max_tokens=100, ignore_eos=False, stream=True),
    "tokenize": ("/tokenize", {"model": "smollm2", "prompt": "One two"}),
    "tokenize, chat": ("/tokenize", {"model": "smollm2", "messages": [{"role": "user", "content": "One two"}]}),
    "tokenize, texts": ("/tokenize", {"model": "smollm2", "prompt": "One two", "return_token_strs": True}),
    "detokenize": ("/detokenize", {"model": "smollm2", "tokens": [5, 6, 7]}),
}
REFUSED = {
    "no token": _completion(max_tokens=0),
    "less than no token": _completion(max_tokens=-1),
    "no token, streamed": _completion(max_tokens=0, stream=True),
    "a text for a number": _completion(max_tokens="x"),
    "half a token": _completion(max_tokens=1.5),
    "more tokens than the context": _completion(max_tokens=2000),
    "prompt longer than the context": _completion("word " * 2000),
    "no choice": _completion(n=0),
    "too many choices": _completion(n=20_000),
    "choices without chance": _completion(n=2),
    "temperature below 0": _completion(temperature=-1),
    "temperature above 2": _completion(temperature=3),
    "temperature, a text": _completion(temperature="x"),
    "top_p": _completion(top_p=0),
    "top_k": _completion(top_k=-2),
    "min_p": _completion(min_p=2),
    "presence": _completion(presence_penalty=3),
    "frequency": _completion(frequency_penalty=-3),
    "repetition": _completion(repetition_penalty=0),
    "min_tokens below 0": _completion(min_tokens=-1),
    "min_tokens above max_tokens": _completion(min_tokens=9),
    "seed": _completion(seed="a"),
    "suffix": _completion(suffix="x"),
    "no prompt": (C, {"model": "smollm2"}),
    "empty prompt": _completion(""),
    "no prompts": _completion([]),
    "an empty prompt of several": _completion(["a", ""]),
    "prompt, an object": _completion({"a": 1}),
    "prompt, a number": _completion(5),
    "an unknown token": _completion([2**31]),
    "stop, empty": _completion(stop=""),
    "stop, a number": _completion(stop=5),
    "stop, too many": _completion(stop=list("abcde")),
    "usage without stream": _completion(stream_options={"include_usage": True}),
    "logprobs below -1": _completion(logprobs=-2),
    "logprobs above 20": _completion(logprobs=50),
    "prompt_logprobs above 20": _completion(prompt_logprobs=21),
    "prompt_logprobs below 0": _completion(prompt_logprobs=-2),
    "prompt_logprobs, streamed": _completion(prompt_logprobs=1, stream=True),
    "two forms": _completion(structured_outputs={"json": SCHEMA, "regex": "a"}),
    "no choice to choose": _completion(structured_outputs={"choice": []}),
    "schema, no JSON": _completion(structured_outputs={"json": "{"}),
    "no object": (C, [1]),
    "no messages": (H, {"model": "smollm2", "messages": []}),
    "messages missing": (H, {"model": "smollm2"}),
    "messages, a text": (H, {"model": "smollm2", "messages": "hi"}),
    "a message without a role": _talk({"content": "hi"}),
    "content, a number": _talk({"role": "user", "content": 5}),
    "image": _chat([{"type": "text", "text": "One"}, _PNG]),
    "chat, no token": _chat(max_tokens=0),
    "chat, no choice": _chat(n=0),
    "chat, prompt longer than the context": _chat("word " * 2000),
    "top_logprobs alone": _chat(top_logprobs=2),
    "top_logprobs above 20": _chat(logprobs=True, top_logprobs=50),
    "schema missing": _chat(response_format={"type": "json_schema"}),
    "schema of no type": _chat(
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nope"}}}
    ),
    "format unknown": _chat(response_format={"type": "foo"}),
    "tools, empty": _chat(tools=[]),
    "tools missing": _chat(tool_choice="required"),
    "tool unknown": _chat(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "other"}}),
    "tool choice unknown": _chat(tools=[TOOL], tool_choice="other"),
    "tokenize nothing": ("/tokenize", {"model": "smollm2"}),
}
