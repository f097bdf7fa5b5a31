"""vLLM's own run_batch on an engine that stays up, in the engine's environment: `... vllm_side -i - -o - ARGUMENTS`.

Each line of standard input names a file of requests and a file for the answers. Said of it: the seconds from where
run_batch logs that it reads the file to where it has written the answers. So neither the start of the engine nor that
of the routes counts.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time

from vllm.entrypoints.launchers import run_batch as offline
from vllm.entrypoints.launchers.api_server.entry import build_async_engine_client

MARK = "seconds: "


class Begun(logging.Handler):
    """Notes when run_batch begins to read a file."""

    at_s = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg.startswith("Reading batch"):
            self.at_s = time.perf_counter()


async def main() -> None:
    args, begun = offline.parse_args(), Begun()
    offline.logger.addHandler(begun)
    async with build_async_engine_client(args) as engine:
        while line := await asyncio.to_thread(sys.stdin.readline):
            args.input_file, args.output_file = line.split()
            await offline.run_batch(engine, args)
            sys.stdout.write(f"{MARK}{time.perf_counter() - begun.at_s}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
