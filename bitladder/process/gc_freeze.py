"""Keep long passes of the garbage collector from delaying requests."""

from __future__ import annotations

import gc


def freeze_heap() -> None:
    """Exclude all objects that exist after the start from later collections: they live as long as the process.

    A full collection visits every object. In an intake that takes 65 ms, mostly for modules, and delays every token.
    """
    gc.collect()
    gc.freeze()
