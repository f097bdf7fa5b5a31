"""A batch: `python examples/batch.py [name] < prompts.jsonl > answers.jsonl`. A body a line in, an answer a line out.

The jobs wait in the batch lane, so they keep no urgent request waiting, and do not overflow to dearer tiers. Answers
come as they are ready, each with the number of its line; a line that was refused or failed says why. With a name, a
batch that was broken off is run again with the same command: nothing is computed twice (docs/producers.md).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from bitladder.contract import Outcome, State
from bitladder.entries import Entry
from bitladder.errors import BitladderError
from bitladder.producer import Producer
from bitladder.settings.load import load_settings

TIMEOUT_S = 3600


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else None
    with Producer(load_settings().settings) as producer:
        jobs = producer.submit_each(entries(name))
        for index, job_id, outcome in producer.as_completed(jobs, timeout_s=TIMEOUT_S):
            print(json.dumps({"line": index + 1, "job": job_id or None} | answer_of(outcome)), flush=True)


def entries(name: str | None) -> Iterator[Entry]:
    for number, line in enumerate(sys.stdin, start=1):
        yield Entry(body_of(line), idempotency_key=name and f"{name}:{number}")


def body_of(line: str) -> Any:  # noqa: ANN401  (a line that is no JSON object is refused in its place)
    try:
        return json.loads(line)
    except ValueError:
        return line


def answer_of(outcome: Outcome | BitladderError) -> dict[str, Any]:
    if isinstance(outcome, BitladderError):
        return {"error": outcome.message}
    if outcome.state is not State.FINISHED:
        return {"error": outcome.error or str(outcome.state)}
    return {"tier": outcome.tier, "response": json.loads(outcome.answer or b"null")}


if __name__ == "__main__":
    main()
