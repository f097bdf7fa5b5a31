"""A producer beside Redis: `python examples/producer.py`. It routes as the intake does, and speaks no HTTP.

It reads the same configuration as the intake: bitladder.toml, or the file that `BITLADDER_CONFIG` names.
"""

from __future__ import annotations

from bitladder.errors import NotEndedError
from bitladder.producer import Producer
from bitladder.settings.load import load_settings


def main() -> None:
    with Producer(load_settings().settings) as producer:
        try:
            outcome = producer.run({"model": "smollm2", "prompt": "What a day", "max_tokens": 8}, timeout_s=60)
        except NotEndedError as error:
            raise SystemExit(f"{error}: does a worker live? (bitladder queues)") from None
        print(f"{outcome.state} on {outcome.tier}, because {outcome.reason}")

        # Submit now, look later. The key makes it safe to submit again after an error: the job is stored once.
        job_id = producer.submit(
            {"model": "smollm2", "messages": [{"role": "user", "content": "Who wrote Hamlet?"}], "max_tokens": 8},
            headers={"Idempotency-Key": "hamlet", "X-Max-Tier": "int8"},
        )
        print(f"submitted {job_id}")
        print(f"later: {producer.wait(job_id, timeout_s=60).state}")


if __name__ == "__main__":
    main()
