"""A program that behaves as `python -m vllm.entrypoints.openai.api_server` does when it is in trouble.

`install` writes a script that `[vllm].python` can name. The server reads vLLM's arguments, ends with vLLM's own
messages when memory is short, and serves /health, /metrics and /v1/completions on the socket. Its environment
(`[vllm].env`) and the prompts cause faults:

- FAKE_FREE=0.6: this share of the memory is free. FAKE_LENGTH=1000: the longest context that fits into it.
- FAKE_FAULTS=/path: while that file exists every request is answered with 500.
- crash: the server ends at once. dead: 500, and it is unhealthy from then on, as when vLLM's core has died.
- hang: no more tokens for any request; /health and /metrics still answer. stall: this stream alone stops.
- fault: 500 for this request only.
- nan: log probabilities of NaN, which is not JSON. null: log probabilities that are null. unwritable: NaN as vLLM 0.32
  answers it, null in a stream and a 400 otherwise. corrupt: the counter of NaN rises. empty: tokens without a text.
- slow: a second for every token.

A chat with tools is refused in vLLM's words unless it was started with a parser for their calls.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from aiohttp import web


def install(folder: Path) -> str:
    """Write a script that replaces an interpreter with vLLM; return its path."""
    script = folder / "python-with-vllm"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    return str(script)


TOO_LARGE = (
    "ValueError: Free memory on device cuda:0 ({free:.1f}/100.0 GiB) on startup is less than desired GPU "
    "memory utilization ({asked}, {need:.1f} GiB). Decrease GPU memory utilization or reduce GPU memory used by other "
    "processes."
)
TOO_LONG = (
    "ValueError: To serve at least one request with the model's max seq len ({asked}), (9.0 GiB KV cache is needed, "
    "which is larger than the available KV cache memory (1.0 GiB). Based on the available memory, the estimated "
    "maximum model length is {longest}. Try increasing `gpu_memory_utilization` or decreasing `max_model_len`."
)


def has_faults() -> bool:
    return os.path.exists(os.environ.get("FAKE_FAULTS", ""))


class Server:
    """One fake server: a token every 10 ms, and a defect for the prompt that asks for it."""

    def __init__(self, tool_call_parser: str | None) -> None:
        self.tool_call_parser = tool_call_parser
        self.tokens = self.corrupted = 0
        self.is_dead = False
        self.running = asyncio.Event()
        self.running.set()

    async def health(self, _: web.Request) -> web.Response:
        return web.Response(status=503 if self.is_dead else 200)

    async def metrics(self, _: web.Request) -> web.Response:
        labels = '{engine="0",model_name="fake"}'
        figures = {
            "generation_tokens_total": self.tokens,
            "corrupted_requests_total": self.corrupted,
            "kv_cache_usage_perc": 0,
        }
        lines = [f"vllm:{name}{labels} {float(value)}" for name, value in figures.items()]
        return web.Response(text="\n".join([*lines, f"vllm:prompt_tokens_total{labels} 0.0", ""]))

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if body.get("tools") and not self.tool_call_parser:
            why = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
            error = {"message": why, "type": "BadRequestError", "param": None, "code": 400}
            return web.json_response({"error": error}, status=400)
        function = {"name": self.tool_call_parser, "arguments": "{}"}
        call = {"index": 0, "id": "call_0", "type": "function", "function": function}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
        return web.json_response({"object": "chat.completion", "choices": [choice]})

    async def completions(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        prompt = str(body.get("prompt", ""))
        if prompt == "crash":
            os._exit(1)
        if prompt == "hang":
            self.running.clear()
        self.is_dead = self.is_dead or prompt == "dead"
        self.corrupted += prompt == "corrupt"
        if self.is_dead or prompt == "fault" or has_faults():
            return web.json_response({"error": {"message": "EngineCore encountered an issue."}}, status=500)
        if body.get("stream"):
            return await self.stream(request, body, prompt)
        if prompt == "unwritable":
            message = "Out of range float values are not JSON compliant"
            error = {"message": message, "type": "BadRequestError", "param": None, "code": 400}
            return web.json_response({"error": error}, status=400)
        for _ in range(body.get("max_tokens", 16)):
            await self.step(prompt)
        return web.Response(text=json.dumps(self.answer(prompt)), content_type="application/json")

    async def stream(self, request: web.Request, body: dict[str, Any], prompt: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for index in range(body.get("max_tokens", 16)):
            await self.step(prompt)
            if index == 1 and prompt == "stall":
                await asyncio.Event().wait()
            await response.write(b"data: " + json.dumps(self.answer(prompt)).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response

    async def step(self, prompt: str) -> None:
        await self.running.wait()
        await asyncio.sleep(1 if prompt == "slow" else 0.01)
        self.tokens += 1

    def answer(self, prompt: str) -> dict[str, Any]:
        number = {"nan": float("nan"), "null": None, "unwritable": None}.get(prompt, -0.5)
        text, finish = ("", "length") if prompt == "empty" else ("token ", "stop")
        logprobs = {"token_logprobs": [-0.1, number]}
        choice = {"index": 0, "text": text, "finish_reason": finish, "logprobs": logprobs}
        usage = {"prompt_tokens": 1, "completion_tokens": 16}
        return {"object": "text_completion", "choices": [choice], "usage": usage}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-m", dest="module")
    for name in ("--model", "--served-model-name", "--uds", "--dtype"):
        parser.add_argument(name)
    parser.add_argument("--gpu-memory-utilization", type=float, default=0.92)
    parser.add_argument("--max-model-len", type=int, default=4096)
    parser.add_argument("--max-logprobs", type=int)
    parser.add_argument("--no-enable-chunked-prefill", action="store_true")
    parser.add_argument("--enable-auto-tool-choice", action="store_true")
    parser.add_argument("--tool-call-parser")
    args = parser.parse_args()
    free, longest = float(os.environ.get("FAKE_FREE", "1")), int(os.environ.get("FAKE_LENGTH", "10000"))
    asked = args.gpu_memory_utilization
    if asked > free:
        sys.exit(TOO_LARGE.format(free=free * 100, asked=asked, need=asked * 100))
    if args.max_model_len > longest:
        sys.exit(TOO_LONG.format(asked=args.max_model_len, longest=longest))
    sys.stdout.write("INFO fake vLLM starts\n")
    sys.stdout.flush()
    server, app = Server((args.enable_auto_tool_choice and args.tool_call_parser) or None), web.Application()
    app.add_routes(
        [
            web.get("/health", server.health),
            web.get("/metrics", server.metrics),
            web.post("/v1/completions", server.completions),
            web.post("/v1/chat/completions", server.chat),
        ]
    )
    web.run_app(app, path=args.uds, print=lambda *_: None, shutdown_timeout=0.1)


if __name__ == "__main__":
    main()
