"""Load on one HTTP route by wrk, as figures."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_SCRIPT = Path(__file__).with_suffix(".lua")
_GRACE_S = 15  # wrk stops within 0.1 s of its time; far beyond that, it hangs


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What wrk saw.

    `requests` are answers, the failed ones too; `errors` are answers other than 2xx and broken connections. A request
    still open at the end counts nowhere. wrk corrects its percentiles for coordinated omission: an answer that takes
    longer than twice the mean interval of a connection counts as the several that would have waited behind it.
    """

    requests: int
    errors: int
    seconds: float
    requests_per_s: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float


def load(  # noqa: PLR0913  (the knobs of one measurement)
    url: str,
    body: bytes,
    *,
    connections: int,
    seconds: float,
    threads: int = 1,
    headers: Mapping[str, str] | None = None,
    think_ms: float = 0,
) -> Load:
    """POST `body` to `url` over so many connections; each waits `think_ms` on average (exponential) before a request.

    wrk takes whole seconds only, so `seconds` is rounded up; Load.seconds is the time that was measured.
    """
    if connections % threads:
        # wrk divides and drops the rest, so that the load would be smaller than asked for.
        message = f"{threads} threads cannot share {connections} connections evenly"
        raise ValueError(message)
    whole_s = max(1, math.ceil(seconds))
    options = [f"-t{threads}", f"-c{connections}", f"-d{whole_s}s", f"-s{_SCRIPT}"]
    # An answer beyond wrk's own timeout (2 s) would be dropped from the percentiles: one beyond the end cannot come.
    options.append(f"--timeout={whole_s + 1}s")
    for name, value in (headers or {}).items():
        options += ["-H", f"{name}: {value}"]
    with tempfile.NamedTemporaryFile(prefix="wrk-body-") as file:
        file.write(body)
        file.flush()
        output = _run([*options, url, "--", file.name, str(think_ms)], timeout_s=whole_s + _GRACE_S)
    return _parse(output)


def _run(arguments: list[str], *, timeout_s: float) -> str:
    wrk = shutil.which("wrk")
    if wrk is None:
        message = "wrk is not installed: apt-get install wrk (or brew install wrk, dnf install wrk)"
        raise RuntimeError(message)
    try:
        done = subprocess.run(  # noqa: S603  (our own command)
            [wrk, *arguments], capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        message = f"wrk did not end within {timeout_s:g} s"
        raise RuntimeError(message) from error
    if done.returncode:
        message = f"wrk failed with status {done.returncode}: {(done.stderr or done.stdout).strip()[-500:]}"
        raise RuntimeError(message)
    # wrk reports an error of the script on stderr and goes on without it.
    return f"{done.stderr}{done.stdout}"


def _parse(output: str) -> Load:
    last = output.rstrip().rpartition("\n")[2]
    try:
        figures = json.loads(last)
    except ValueError as error:
        message = f"wrk printed no figures: {output.strip()[:500]}"
        raise RuntimeError(message) from error
    if not figures["requests"]:
        message = f"nothing was answered: {last}"  # percentiles of nothing would read as a very fast server
        raise RuntimeError(message)
    seconds = figures.pop("duration_s")
    return Load(seconds=seconds, requests_per_s=figures["requests"] / seconds, **figures)
