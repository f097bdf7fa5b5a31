"""For producers beside Redis: score, route and queue prompts without HTTP, and await outcomes (docs/producers.md).

with Producer(settings) as producer:
    print(producer.run({"model": "smollm2", "prompt": "Hello"}).answer)
    jobs = producer.submit_many({"model": "smollm2", "prompt": line} for line in lines)
    for index, job_id, outcome in producer.as_completed(jobs):
        ...  # an Outcome, or the error of body `index`
    batch = producer.batch(bodies)  # ids are known before anything is sent, and another process may open it
    outcomes = batch.gather()
"""

from __future__ import annotations

from bitladder.producer.batch import Batch
from bitladder.producer.producer import Answer, Producer
from bitladder.queue.sending.bulk import BUNDLE

__all__ = ["BUNDLE", "Answer", "Batch", "Producer"]
