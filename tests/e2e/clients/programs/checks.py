"""What every program here shares: named checks, run in order, each printed as a line of JSON.

A program runs in its client's own environment, which knows nothing of bitladder. `OPENAI_BASE_URL` and
`OPENAI_API_KEY` say where the intake is, as these clients read them.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

URL = os.environ["OPENAI_BASE_URL"]
MODEL = os.environ.get("MODEL", "smollm2")
_CHECKS: list[Callable[[], Any]] = []


def check(function: Callable[[], Any]) -> Callable[[], Any]:
    """Mark a function, plain or async, as a check; its name is the check's."""
    _CHECKS.append(function)
    return function


def run_checks() -> None:
    """Run all of them, print what became of each, and exit with 1 if one failed."""
    wanted = set(sys.argv[1:])
    # Clients keep connections, which belong to a loop: all checks share one.
    with asyncio.Runner() as runner:
        chosen = [function for function in _CHECKS if not wanted or function.__name__ in wanted]
        results = [_result_of(function, runner) for function in chosen]
    for result in results:
        print(json.dumps(result))
    sys.exit(any(result["error"] for result in results))


def _result_of(function: Callable[[], Any], runner: asyncio.Runner) -> dict[str, str]:
    try:
        outcome = function()
        if inspect.isawaitable(outcome):
            runner.run(_awaited(outcome))
    except Exception:
        return {"check": function.__name__, "error": traceback.format_exc(limit=-4)}
    return {"check": function.__name__, "error": ""}


async def _awaited(outcome: Any) -> Any:
    return await outcome
