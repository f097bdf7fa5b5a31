"""The intake's own endpoints without a queue: score, route, call the echo engine, answer. `... floor_app PORT`."""

from __future__ import annotations

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.harness import CONFIG
from bitladder.endpoints import Endpoint
from bitladder.routing.accept import Incoming, accept
from bitladder.settings.load import load_settings
from dispatcher.http.middleware import RequestIds
from workers.engines.echo import EchoEngine


def create_app() -> Starlette:
    """Return the application of one process."""
    settings = load_settings(CONFIG).settings
    engine = EchoEngine(settings.echo)

    async def endpoint(request: Request) -> Response:
        body = await request.body()
        incoming = Incoming(
            endpoint=Endpoint.COMPLETIONS,
            body=body,
            headers=request.headers,
            request_id=request.state.request_id,
        )
        job = accept(incoming, settings).submission
        answer = await engine.generate(job.request.endpoint, body, None)
        return Response(answer.body, answer.status, {"X-Job-Id": job.job_id}, media_type="application/json")

    return Starlette(
        routes=[Route(Endpoint.COMPLETIONS, endpoint, methods=["POST"])], middleware=[Middleware(RequestIds)]
    )


if __name__ == "__main__":
    uvicorn.run(
        create_app(),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
    )
