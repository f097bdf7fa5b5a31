"""An OpenAI upstream that answers every completion at once, so that a proxy before it is what a benchmark measures."""

from __future__ import annotations

import json
import sys
from typing import Any

import uvicorn
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_TEXT = "Deep in the forest an old clock struck nine, and every owl turned its head to listen."


def _answer(kind: str, choice: dict[str, Any]) -> Response:
    """Return one answer, encoded once: Starlette's responses hold no state and can be sent again and again."""
    body = {
        "id": "mock-1",
        "object": kind,
        "created": 1700000000,
        "model": "smollm2",
        "choices": [{"index": 0, "finish_reason": "stop", "logprobs": None, **choice}],
        "usage": {"prompt_tokens": 20, "completion_tokens": 20, "total_tokens": 40},
    }
    return Response(json.dumps(body), media_type="application/json")


_ANSWERS = {
    "/v1/chat/completions": _answer("chat.completion", {"message": {"role": "assistant", "content": _TEXT}}),
    "/v1/completions": _answer("text_completion", {"text": _TEXT}),
}
_UNKNOWN = Response(status_code=404)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer by the path alone; a router and a Request object would only cost the machine that is measured."""
    while (await receive()).get("more_body"):  # no real upstream answers before it has read the prompt
        pass
    await _ANSWERS.get(scope["path"], _UNKNOWN)(scope, receive, send)


def main() -> None:
    """Serve on the port named on the command line, on loopback only."""
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        lifespan="off",
        ws="none",
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,  # the proxy keeps its connections between two measurements
    )


if __name__ == "__main__":
    main()
