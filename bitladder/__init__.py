"""One LLM at several precisions: what every process and every user of the queue imports.

`Client`, `AsyncClient` and `Producer` are loaded when they are first asked for: a worker that imports the contract
does not pay for an HTTP client.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bitladder.client import AsyncClient, Client
    from bitladder.entries import Entry
    from bitladder.producer import Producer

__all__ = ["AsyncClient", "Client", "Entry", "Producer", "__version__"]

_HOMES = {
    "AsyncClient": "bitladder.client",
    "Client": "bitladder.client",
    "Entry": "bitladder.entries",
    "Producer": "bitladder.producer",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("bitladder")
    if home := _HOMES.get(name):
        return getattr(import_module(home), name)
    raise AttributeError(f"module 'bitladder' has no attribute {name!r}; it has {', '.join(__all__)}")
