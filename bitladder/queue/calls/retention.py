"""How long jobs are kept, as scripts that end jobs are told."""

from __future__ import annotations

from bitladder.settings.sections import Settings


def retention(settings: Settings) -> str:
    """Return the argument that `read_keep` reads (scripts/parts/retention.lua)."""
    queue = settings.queue
    seconds = (queue.result_ttl_s, queue.dead_letter_ttl_s, queue.response_ttl_s, queue.max_wait_s)
    ttl, dead_ttl, response_ttl, wait = (s * 1000 for s in seconds)
    return f"{ttl} {dead_ttl} {queue.max_dead_letters} {response_ttl} {queue.max_response_bytes} {wait}"
