"""docs/api/webhooks.md: every example on the page does what the page says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

from tests.conftest import Stack, free_port, wait_until
from tests.page_examples import blocks, run_python, run_shell

PAGE = "docs/api/webhooks.md"


def test_the_examples_do_what_the_page_says(make_stack: Callable[..., Stack]) -> None:
    port = free_port()
    stack = make_stack(BITLADDER_WEBHOOKS__ALLOWED_NETWORKS='["127.0.0.0/8"]', RECEIVER=f"127.0.0.1:{port}")
    stack.intake()
    stack.worker("int4")
    (program,) = blocks(PAGE, "python")
    names: dict[str, Any] = {}
    exec(program.replace("9000", str(port)), names)  # noqa: S102  (the page's)
    server = names["server"]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        (accepted,) = run_shell(PAGE, stack)
        wait_until(lambda: bool(names["events"]), "the receiver has verified the delivery")
        assert list(names["events"].values()) == [("job.finished", json.loads(accepted)["id"])]
        server.RequestHandlerClass.do_POST = _take  # the endpoint's secret is another
        run_python(PAGE, stack, at_least=9)["client"].close()
    finally:
        server.shutdown()
        server.server_close()


def _take(handler: Any) -> None:  # noqa: ANN401  (the page's class)
    handler.rfile.read(int(handler.headers["Content-Length"]))
    handler.send_response(204)
    handler.end_headers()
