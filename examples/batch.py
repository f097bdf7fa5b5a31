"""A batch: `python examples/batch.py < prompts.jsonl > answers.jsonl`. An OpenAI body a line in, an answer a line out.

The jobs wait in the batch lane, so they keep no urgent request waiting, and do not overflow to dearer tiers. Answers
come in the order of the prompts. A line that was refused or failed says why.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from bitladder.contract import State
from bitladder.errors import BitladderError
from bitladder.producer import Producer
from bitladder.settings.load import load_settings

TIMEOUT_S = 3600


def main() -> None:
    bodies = [json.loads(line) for line in sys.stdin if line.strip()]
    with Producer(load_settings().settings) as producer:
        for place, job in enumerate(producer.submit_many(bodies)):
            print(json.dumps({"line": place + 1} | answer_of(producer, job)), flush=True)


def answer_of(producer: Producer, job: str | BitladderError) -> dict[str, Any]:
    if isinstance(job, BitladderError):
        return {"error": str(job)}
    outcome = producer.wait(job, timeout_s=TIMEOUT_S)
    if outcome is None:
        return {"job": job, "error": f"not over after {TIMEOUT_S} s; the job goes on"}
    if outcome.state is not State.FINISHED:
        return {"job": job, "error": outcome.error or str(outcome.state)}
    return {"job": job, "tier": outcome.tier, "response": json.loads(outcome.answer or b"null")}


if __name__ == "__main__":
    main()
