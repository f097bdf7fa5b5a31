"""A batch of chats beside vLLM's own run_batch, in turns: `python -m benchmarks.batches.run_batch`.

Each has an engine of the same checkpoint with the same arguments, up and warm. A batch counts from the upload of the
file to the last byte of its results; run_batch, from where it reads the file to where it has written the answers.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from benchmarks.batches.batch_client import batch_input, run_as_batch
from benchmarks.harness import ROOT, Figures, arguments, demo_prompts, process, save, say, spread, spread_of, target
from benchmarks.peers.base import cpu_s
from benchmarks.servers.stacks import EXAMPLE, TIER, stack
from bitladder.settings.load import load_settings
from workers.engines.hardware.cpu import dtype_args
from workers.engines.vllm_server import ENVIRONMENT, checkpoint_path

LINES, ROUNDS = 200, 2
SHORT_LINES = 32
MAX_TOKENS = 48
WARM_UP = 16
# More than the engine's --max-num-seqs: one that waits in the engine begins in the step after another one's end.
SLOTS = 24
CHAT = "/v1/chat/completions"
PROGRAM = Path(__file__).with_name("vllm_side.py")
MARK = b"seconds: "  # the program says it before its figure


class OwnBatch:
    """vLLM's run_batch, with its engine."""

    def __init__(self, started: subprocess.Popen[bytes], folder: Path) -> None:
        self._started, self._source, self._output = started, folder / "in.jsonl", folder / "out.jsonl"

    def run(self, content: bytes) -> tuple[bytes, float]:
        self._source.write_bytes(content)
        _stream(self._started.stdin).write(f"{self._source} {self._output}\n".encode())
        _stream(self._started.stdin).flush()
        for line in _stream(self._started.stdout):
            if line.startswith(MARK):
                return self._output.read_bytes(), float(line.removeprefix(MARK))
        raise RuntimeError(f"vLLM ended with status {self._started.wait()}")

    def cpu_s(self) -> float:
        return cpu_s(self._started.pid)


@contextlib.contextmanager
def own_batch() -> Iterator[OwnBatch]:
    """Run vLLM's run_batch on the example's checkpoint with the example's settings."""
    settings = load_settings(EXAMPLE).settings
    path = checkpoint_path(settings.model("smollm2").tier(TIER), settings.vllm)
    command = [
        *(str(ROOT / settings.vllm.python), str(PROGRAM), "-i", "-", "-o", "-"),
        *("--model", str(path), "--served-model-name", "smollm2"),
        *settings.vllm.args,
        *dtype_args(settings.vllm.args),
    ]
    with (
        tempfile.TemporaryDirectory() as folder,
        process(command, ENVIRONMENT | settings.vllm.environment, is_talked_to=True) as started,
    ):
        yield OwnBatch(started, Path(folder))


def _stream(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe  # noqa: S101  (it was asked for)
    return pipe


def chats(count: int, seed: int) -> bytes:
    """Return lines whose prompts and answers have mixed lengths; those of another seed are others."""
    texts, mixed = demo_prompts(), random.Random(seed)  # noqa: S311  (a workload)
    bodies: list[dict[str, Any]] = [
        {
            "model": "smollm2",
            "messages": [{"role": "user", "content": f"{seed}.{number} {mixed.choice(texts)}"}],
            "max_tokens": mixed.randint(4, MAX_TOKENS),
            "temperature": 0,
            "ignore_eos": True,  # every line makes the same number of tokens, whichever way it goes
        }
        for number in range(count)
    ]
    return batch_input(CHAT, bodies)


def measured(run: Callable[[bytes], tuple[bytes, float]], used_s: Callable[[], float], content: bytes) -> Figures:
    before_s = used_s()
    output, taken_s = run(content)
    used = used_s() - before_s
    count = content.count(b"\n") + 1
    answers = [json.loads(line)["response"] for line in output.splitlines()]
    if len(answers) != count or any(answer["status_code"] != 200 for answer in answers):
        raise RuntimeError(f"{count} lines must be answered, got {len(answers)}")
    tokens = sum(answer["body"]["usage"]["completion_tokens"] for answer in answers)
    return {"lines_per_s": count / taken_s, "tokens_per_s": tokens / taken_s, "cpu_ms": used / count * 1000}


def main() -> None:
    options = arguments(__doc__)
    count, rounds = (SHORT_LINES, 1) if options.short else (LINES, ROUNDS)
    seen: dict[str, list[Figures]] = {"vLLM's run_batch": [], "batch": []}
    with contextlib.ExitStack() as block:
        folder = block.enter_context(tempfile.TemporaryDirectory())
        own = block.enter_context(own_batch())
        measured(own.run, own.cpu_s, chats(WARM_UP, 0))  # the first ones pay for the warm-up
        environment = {"BITLADDER_CONFIG": EXAMPLE, "BITLADDER_FILES__STORE": str(Path(folder) / "files")}
        environment[f"BITLADDER_MODELS__SMOLLM2__TIERS__{TIER.upper()}__SLOTS"] = str(SLOTS)
        running = block.enter_context(stack(TIER, environment, start_s=200))  # with its engine
        run_as_batch(running.urls[0], CHAT, chats(WARM_UP, 0))
        ways = {
            "vLLM's run_batch": (own.run, own.cpu_s),
            "batch": (
                lambda content: run_as_batch(running.urls[0], CHAT, content),
                lambda: sum(map(cpu_s, running.pids.values())),
            ),
        }
        for number in range(1, rounds + 1):
            for way, (run, used_s) in ways.items():
                seen[way].append(measured(run, used_s, chats(count, number)))
                say(f"{way}: {seen[way][-1]}")
            _save(seen, count, options)  # a run that is broken off leaves its rounds


def _save(seen: Mapping[str, Sequence[Figures]], count: int, options: argparse.Namespace) -> None:
    rows = {way: spread_of(figures) for way, figures in seen.items()}
    pairs = zip(*seen.values(), strict=True)
    ratios = spread([batch["lines_per_s"] / own["lines_per_s"] for own, batch in pairs])
    rows["batch"]["of_own"] = ratios
    targets = [target(f"{count} chats by a batch, of vLLM's run_batch", ratios["median"], 0.98)]
    save("run_batch", {"rows": rows, "slots": SLOTS, "targets": targets}, options)


if __name__ == "__main__":
    main()
