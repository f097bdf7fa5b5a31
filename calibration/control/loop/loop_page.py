"""The page of a loop: how far it is, what each step found, what would be changed, and who signed that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from calibration.artifacts.folder import replace_file
from calibration.artifacts.html_report import Section, html_page
from calibration.control.loop.loop_file import LoopFile
from calibration.control.loop.loop_state import LoopState, page_digest
from calibration.control.loop.loop_steps import ABLATE, CANARY, LABEL, NAMES, PROMOTE, PROPOSE, SAMPLE, SIGNED, TUNE
from calibration.terminal.escape import printable

PAGE = "index.html"
_MAX_ROWS = 60
_MAX_CHARS = 300
_MEANING = {
    SAMPLE: "prompts of real traffic, without near-duplicates",
    LABEL: "what each tier loses on each prompt, against the reference",
    TUNE: "the policy, and the limit that the labels prove",
    ABLATE: "every policy's quality against its cost, on labels that it was not fitted on",
    PROPOSE: "the file that would be changed; nothing is yet",
    CANARY: "the policy for a share of the keys, until a test decides",
    PROMOTE: "the policy for all requests",
}
_NOTES = (
    "The signature is of what the steps up to the proposal found. If one of them is done again, it counts no more.",
    "A promise holds for traffic like the labels, and for the checkpoints that were labelled.",
)


def write_page(folder: Path, loop: LoopFile, state: LoopState) -> None:
    replace_file(folder / PAGE, loop_page(folder, loop, state).encode())


def loop_page(folder: Path, loop: LoopFile, state: LoopState) -> str:
    """Return the page of a loop in this folder."""
    sections = [
        Section(heading="Steps", header=["step", "outcome", "begun", "seconds", ""], rows=[*_steps(state)]),
        Section(heading="What would be changed, and who signed it", rows=[*_change(folder, loop, state)]),
        *_pictures(folder),
        *(
            Section(heading=name, rows=rows)
            for name in NAMES
            if (record := state.steps.get(name)) and (rows := [*_rows(record.figures)][:_MAX_ROWS])
        ),
    ]
    return html_page("The control loop", f"{folder}: {summary(state)}", sections, _NOTES)


def summary(state: LoopState) -> str:
    """Return in a clause how far the loop is."""
    for name in NAMES:
        record = state.steps.get(name)
        if record is not None and record.outcome != "done":
            return f"{name} {record.outcome} (exit status {record.exit_status})"
    if PROMOTE in state.steps:
        return "promoted"
    if PROPOSE in state.steps:
        return "signed" if is_signed(state) else "to be read and signed"
    return "under way"


def is_signed(state: LoopState) -> bool:
    """Return whether what the steps found up to the proposal is what somebody signed."""
    return state.signature is not None and state.signature.page == page_digest(state, SIGNED)


def _steps(state: LoopState) -> Iterator[list[str]]:
    for name in NAMES:
        if record := state.steps.get(name):
            yield [name, record.outcome, record.started_at, f"{record.seconds:g}", _MEANING[name]]
        else:
            yield [name, "", "", "", _MEANING[name]]


def _change(folder: Path, loop: LoopFile, state: LoopState) -> Iterator[list[str]]:
    if not state.proposal:
        yield ["proposal", "none yet"]
        return
    yield ["proposal", state.proposal]
    yield ["policy", f"{state.policy}, by {printable(loop.policies.get(state.policy, 'a file that is named no more'))}"]
    yield ["digest of what is signed", page_digest(state, SIGNED)[:16]]
    if state.signature is None:
        yield ["signed", f"by nobody: bitladder calibrate loop sign -o {folder} --name NAME"]
        return
    signature = state.signature
    yield [
        "signed",
        f"by {printable(signature.name)} at {signature.at}{'' if is_signed(state) else ', of another content'}",
    ]
    if signature.note:
        yield ["note", printable(signature.note)]


def _pictures(folder: Path) -> Iterator[Section]:
    for picture in sorted((folder / "ablation").glob("*.png"))[:3]:
        yield Section(heading=f"ablation: {picture.stem}", png=picture.read_bytes())


def _rows(figures: Mapping[str, Any], above: str = "") -> Iterator[list[str]]:
    """Return what a command found as rows: the names of parts within parts are divided by dots."""
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _rows(value, f"{above}{name}.")
        elif isinstance(value, float):
            yield [printable(f"{above}{name}"), f"{value:.4g}"]
        else:
            yield [printable(f"{above}{name}"), printable(f"{value}"[:_MAX_CHARS])]
