"""kill -9 of Valkey right after the 202, again and again, and a look whether every job that was answered is there.

`python -m tests.chaos.durability --rounds 1000` prints its figures and writes var/chaos/durability.json.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx2

from bitladder.errors import QueueUnreachableError
from bitladder.producer import Producer
from bitladder.settings.queue_section import Durability
from tests.chaos.valkey import Valkey
from tests.conftest import ROOT, Stack, make_settings

BODY = {"model": "smollm2", "prompt": "aa bb"}
# Requests that are under way when the server is killed: the first answer is its end.
AT_ONCE = 4
TTL_S = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What so many kills did."""

    durability: str
    rounds: int
    answered: int  # jobs that were accepted: by 202, or by a producer's return
    lost: list[str]  # of these, the ones that were not there after the restart
    unanswered: int  # requests that were under way, and ended in a 503 or without an answer
    unanswered_kept: int  # jobs that are there although nobody was told so: a retry under their key finds them
    wall_s: float


def kill_again_and_again(rounds: int, durability: Durability, folder: Path) -> Figures:
    """Submit, kill Valkey at the first answer, start it again and look; over HTTP and by a producer in turn."""
    start, answered, lost, unanswered = time.monotonic(), 0, [], 0
    with Valkey(folder, durability) as valkey:
        flags = {"queue__durability": durability, "queue__result_ttl_s": TTL_S}
        stack = Stack(valkey.url, BITLADDER_QUEUE__DURABILITY=durability)
        stack.intake()
        pool = concurrent.futures.ThreadPoolExecutor(AT_ONCE)
        try:
            with Producer(make_settings(valkey.url, **flags)) as producer:
                for number in range(rounds):
                    if number % 2:
                        ids, failed = _kill_a_producer_s(valkey, producer)
                    else:
                        ids, failed = _kill_an_intake_s(valkey, stack, pool)
                    valkey.start()
                    answered, unanswered = answered + len(ids), unanswered + failed
                    lost += [job_id for job_id in ids if valkey.store.hget(f"rq:job:{job_id}", "status") != b"queued"]
        finally:
            pool.shutdown()
            stack.stop()
        kept = len(list(valkey.store.scan_iter("rq:job:*", count=1000))) - (answered - len(lost))
    return Figures(
        durability=durability,
        rounds=rounds,
        answered=answered,
        lost=lost,
        unanswered=unanswered,
        unanswered_kept=kept,
        wall_s=round(time.monotonic() - start, 1),
    )


def _kill_a_producer_s(valkey: Valkey, producer: Producer) -> tuple[list[str], int]:
    try:
        job_id = producer.submit(BODY)
    except QueueUnreachableError:
        return [], 1
    finally:
        valkey.kill()
    return [job_id], 0


def _kill_an_intake_s(
    valkey: Valkey, stack: Stack, pool: concurrent.futures.ThreadPoolExecutor
) -> tuple[list[str], int]:
    futures = [pool.submit(stack.http.post, "/v1/jobs", json=BODY) for _ in range(AT_ONCE)]
    concurrent.futures.wait(futures, return_when=concurrent.futures.FIRST_COMPLETED)
    valkey.kill()
    ids = []
    for future in futures:
        try:
            answer = future.result()
        except httpx2.HTTPError:
            continue
        if answer.status_code == 202:
            ids.append(str(answer.json()["id"]))
    return ids, AT_ONCE - len(ids)


def main() -> int:
    """Read the command line, run, write the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.durability", description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000)
    args = parser.parse_args()
    folder = ROOT / "var" / "chaos" / "durability"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    figures = kill_again_and_again(args.rounds, "fsync", folder)
    text = json.dumps(asdict(figures), indent=2)
    folder.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(text + "\n")
    return 1 if figures.lost else 0


if __name__ == "__main__":
    sys.exit(main())
