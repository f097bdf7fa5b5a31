"""The examples of a page in docs/, run as its readers would run them."""

from __future__ import annotations

import doctest
import re
import subprocess
from typing import Any

from tests.conftest import ROOT, Stack


def blocks(page: str, language: str) -> list[str]:
    """Return what stands in a page's blocks of code in a language."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


RECEIVER = "127.0.0.1:9000"  # of webhooks, on their page


def here(text: str, stack: Stack) -> str:
    """Put this test's addresses in the place of the usual ones."""
    redis_url = stack.environment["BITLADDER_REDIS__URL"]
    text = text.replace(RECEIVER, stack.environment.get("RECEIVER", RECEIVER))
    return text.replace("redis://127.0.0.1:6379/0", redis_url).replace("http://127.0.0.1:8000", stack.url)


def run_shell(page: str, stack: Stack) -> list[str]:
    """Run a page's blocks for the shell, one after the other; return what each has printed."""
    return [
        subprocess.run(["bash", "-euc", here(block, stack)], check=True, capture_output=True, text=True).stdout
        for block in blocks(page, "bash")
    ]


def run_python(page: str, stack: Stack, at_least: int = 20) -> dict[str, Any]:
    """Run a page's sessions as one; return its variables."""
    text = here("\n".join(blocks(page, "pycon")), stack)
    session = doctest.DocTestParser().get_doctest(text, {}, page, page, 0)
    said: list[str] = []

    results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(session, out=said.append, clear_globs=False)

    assert results.attempted >= at_least
    assert results.failed == 0, "".join(said)
    return session.globs
