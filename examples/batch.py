"""A batch: `python examples/batch.py [handle.json] < prompts.jsonl > answers.jsonl`, a body or an answer a line.

The jobs wait in the batch lane, so they keep no urgent request waiting, and do not overflow to dearer tiers. Answers
come as they are ready, each with the number of its line; a line that was refused or failed says why. With a file for
its handle, a batch that was broken off is run again with the same command: nothing is computed twice
(docs/producers.md). For files without a program there is `bitladder batch run`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from bitladder.contract import Outcome, State
from bitladder.errors import BitladderError
from bitladder.producer import Batch, Producer
from bitladder.settings.load import load_settings

TIMEOUT_S = 3600


def main() -> None:
    handle = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    bodies = [body_of(line) for line in sys.stdin]
    with Producer(load_settings().settings) as producer:
        for index, job_id, outcome in opened(producer, bodies, handle).as_completed(timeout_s=TIMEOUT_S):
            print(json.dumps({"line": index + 1, "job": job_id or None} | answer_of(outcome)), flush=True)


def opened(producer: Producer, bodies: list[Any], handle: Path | None) -> Batch:
    if handle and handle.exists():
        return producer.open_batch(handle.read_text(encoding="utf-8"), bodies)
    batch = producer.batch(bodies)
    if handle:  # before anything is sent: whatever comes then, the ids are known
        handle.write_text(batch.as_json(), encoding="utf-8")
    return batch


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
