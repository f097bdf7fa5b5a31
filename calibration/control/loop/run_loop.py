"""Run a loop: each step a process of its own command, skipped where it is done; then the proposal, and a signature.

What a command does when it is run again (labels that go on, a canary that goes on) is its own; here is only the order,
and what need not be done again.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from bitladder.process.signals import ending_with_parent
from bitladder.settings.load import process_environment
from calibration.artifacts.folder import locked
from calibration.control.loop.loop_file import LoopFile
from calibration.control.loop.loop_page import is_signed, write_page
from calibration.control.loop.loop_state import (
    LoopState,
    Signature,
    StepRecord,
    file_digest,
    inputs_digest,
    is_done,
    page_digest,
    read_state,
    with_step,
    write_state,
)
from calibration.control.loop.loop_steps import (
    CANARY,
    PROMOTE,
    PROPOSE,
    SIGNED,
    Step,
    policy_of,
    steps_of,
    steps_on_traffic,
)
from calibration.control.loop.promotion import free_policy, placed, policies_in_force, propose, take_back
from calibration.control.proposals.author import operator, time_now
from calibration.control.proposals.intake_settings import IntakeSettings
from calibration.control.proposals.proposal_folder import ProposalStore
from calibration.errors import InputError

_MAX_FIGURES = 4 * 2**20  # of a command's output


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopOptions:
    """How a loop is run."""

    api_key: str | None = None
    until: str = PROMOTE
    say: Callable[[str], None] = lambda _: None
    start: Callable[[Sequence[str]], tuple[int, bytes]] | None = None  # of a command; None: as a process


class LoopEnd(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run of the loop ended."""

    state: str  # promoted, refused, failed, to be signed, or stopped
    step: str
    message: str = ""
    page: str = ""  # the digest of what is to be signed


def run_loop(loop: LoopFile, folder: Path, options: LoopOptions) -> LoopEnd:
    """Do the steps that are not done, until one refuses, a signature is missing, or the policy is promoted.

    Raises:
        InputError: the file does not fit the folder, or a step's option is wrong.

    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, "loop", lambda: options.say("another process runs this loop: waiting")):
        return _Run(loop, folder, options).run()


def sign(folder: Path, loop: LoopFile, name: str, note: str = "", page: str = "") -> LoopState:
    """Sign what the page says; `page`: the beginning of the digest that it had when it was read, if that is known.

    Raises:
        InputError: there is nothing to sign yet, or no more what was read, or a process runs the loop.

    """

    def busy() -> None:
        raise InputError(f"a process runs the loop of {str(folder)!r}: sign what it says once it waits for that")

    if not folder.is_dir():
        raise InputError(f"there is no loop in {str(folder)!r}")
    with locked(folder, "loop", busy):
        state = read_state(folder)
        if not state.proposal:
            raise InputError(f"there is nothing to sign in {str(folder)!r}: the loop has proposed nothing yet")
        digest = page_digest(state, SIGNED)
        if not digest.startswith(page):
            raise InputError(f"--page {page!r} is not the page of now ({digest[:16]}): read it again")
        signature = Signature(name=name, at=time_now(), page=digest, note=note)
        state = msgspec.structs.replace(state, signature=signature)
        write_state(folder, state)
        write_page(folder, loop, state)
    return state


class _Run:
    def __init__(self, loop: LoopFile, folder: Path, options: LoopOptions) -> None:
        self._loop, self._folder, self._options = loop, folder, options
        self._store = ProposalStore(Path(loop.proposals))
        self._state = read_state(folder)

    def run(self) -> LoopEnd:
        return (
            self._do_all(steps_of(self._loop, self._folder))
            or self._prepare_canary()
            or self._do_all(steps_on_traffic(self._loop, self._folder, self._state.policy, self._state.proposal))
            or LoopEnd(state="promoted", step=PROMOTE)
        )

    def _do_all(self, steps: Sequence[Step]) -> LoopEnd | None:
        for step in steps:
            if end := self._do(step):
                return end
            if step.name == self._options.until != PROMOTE:
                return LoopEnd(state="stopped", step=step.name)
        return None

    def _prepare_canary(self) -> LoopEnd | None:
        """Propose, and put the policy where the stack reads it, once that is signed."""
        record = self._state.steps.get(PROPOSE)
        tried_by = {"policies": self._loop.policies, "canary": self._loop.canary}
        inputs = inputs_digest([f"{tried_by}"], [policy_of(self._folder)])
        if not is_done(record, inputs) or not self._state.proposal:
            with IntakeSettings(self._loop.url, self._options.api_key) as intake:
                policy = free_policy(self._loop, intake)
            self._state = msgspec.structs.replace(self._state, policy=policy, signature=None)
            proposal = propose(self._loop, self._folder, self._state, self._store)
            self._state = msgspec.structs.replace(self._state, proposal=proposal.id)
            figures = {"policy": policy, "canary": self._loop.canary}
            self._keep(PROPOSE, StepRecord(outcome="done", inputs=inputs, started_at=time_now(), figures=figures))
        if self._options.until == PROPOSE:
            return LoopEnd(state="stopped", step=PROPOSE)
        if (was := self._store.read(self._state.proposal).state) in ("undone", "dismissed"):
            message = f"proposal {self._state.proposal} was {was}: change what the steps before it do, or [canary]"
            return LoopEnd(state="refused", step=PROPOSE, message=message)
        signature = self._state.signature
        if signature is None or not is_signed(self._state):
            message, page = f"proposal {self._state.proposal}", page_digest(self._state, SIGNED)[:16]
            return LoopEnd(state="to be signed", step=PROPOSE, message=message, page=page)
        placed(self._store, self._state.proposal, author=f"{signature.name} ({operator()})")
        return None

    def _do(self, step: Step) -> LoopEnd | None:
        inputs = inputs_digest(step.arguments, step.reads)
        if is_done(self._state.steps.get(step.name), inputs):
            self._options.say(f"{step.name}: done before")
            return None
        self._options.say(f"{step.name}: bitladder calibrate {' '.join(step.arguments)}")
        started_at, clock, before = time_now(), time.monotonic(), [*map(_written_at, step.writes)]
        status, output = (self._options.start or self._as_process)(step.arguments)
        written = [*map(_written_at, step.writes)]
        # Any command that breaks ends with 1, too: then what an earlier run has written is not its work.
        is_finished = all(written) and (status == 0 or (status == step.tolerated and written != before))
        record = StepRecord(
            outcome="done" if is_finished else "refused" if status == 1 else "failed",
            inputs=inputs,
            outputs={str(path): file_digest(path) for path in step.writes} if is_finished else {},
            exit_status=status,
            started_at=started_at,
            seconds=round(time.monotonic() - clock, 1),
            figures=_figures(output),
        )
        self._keep(step.name, record)
        if record.outcome == "done":
            return None
        if step.name == CANARY and record.outcome == "refused":
            with IntakeSettings(self._loop.url, self._options.api_key) as intake:
                if self._state.policy in policies_in_force(intake):  # somebody else has given it traffic
                    message = f"its file stays: requests go by {self._state.policy}"
                    return LoopEnd(state="refused", step=CANARY, message=message)
                take_back(self._store, self._state.proposal)
        return LoopEnd(state=record.outcome, step=step.name, message=f"exit status {status}")

    def _keep(self, name: str, record: StepRecord) -> None:
        self._state = with_step(self._state, name, record)
        write_state(self._folder, self._state)
        write_page(self._folder, self._loop, self._state)

    def _as_process(self, arguments: Sequence[str]) -> tuple[int, bytes]:
        """Run a command; it has our stderr, and ends with us, however we end."""
        command = ending_with_parent([sys.executable, "-m", "calibration", *arguments], signal.SIGTERM)
        key = {"BITLADDER_API_KEY": self._options.api_key} if self._options.api_key else {}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=process_environment() | key)  # noqa: S603  (our own)

        def pass_on(number: int, frame: object) -> None:
            del frame
            process.send_signal(number)

        former = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            output, _ = process.communicate()
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)
        # As shells say it: 143 after SIGTERM.
        return process.returncode if process.returncode >= 0 else 128 - process.returncode, output


def _written_at(path: Path) -> int:
    """Return when a file was written, in ns; 0: there is none."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _figures(output: bytes) -> dict[str, Any]:
    """Return what a command printed: its last line that is a JSON object."""
    for line in reversed(output[-_MAX_FIGURES:].splitlines()):
        try:
            figures = msgspec.json.decode(line)
        except msgspec.DecodeError:
            continue
        if isinstance(figures, dict):
            return figures
    return {}
