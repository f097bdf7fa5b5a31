"""How far a loop is: which steps are done, with what, and who signed. One JSON file, replaced as a whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec

from calibration.artifacts.folder import replace_file
from calibration.errors import InputError

FILE = "loop.json"
_MAX_BYTES = 64 * 2**20


class StepRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a step."""

    outcome: Literal["done", "refused", "failed"]
    inputs: str  # digest of its arguments and of the files that it read
    outputs: dict[str, str] = {}  # digests of the files that it wrote
    exit_status: int = 0
    started_at: str = ""
    seconds: float = 0.0
    figures: dict[str, Any] = {}  # what its command printed as JSON
    message: str = ""


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """Who has read the page and lets the policy go to a canary, and of which content."""

    name: str
    at: str
    page: str  # digest of what the page says up to the proposal
    note: str = ""


class LoopState(msgspec.Struct, frozen=True, kw_only=True):
    """A loop's folder."""

    version: Literal[1] = 1
    steps: dict[str, StepRecord] = {}
    proposal: str = ""  # its id
    policy: str = ""  # the table whose file it writes
    signature: Signature | None = None


def read_state(folder: Path) -> LoopState:
    """Return the state of a loop; of a new folder, none of its steps.

    Raises:
        InputError: its file is damaged.

    """
    path = folder / FILE
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        return msgspec.json.decode(content, type=LoopState)
    except FileNotFoundError:
        return LoopState()
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: no state of a loop: {error}; name another folder, or move it") from error


def write_state(folder: Path, state: LoopState) -> None:
    replace_file(folder / FILE, msgspec.json.format(msgspec.json.encode(state), indent=1) + b"\n")


def with_step(state: LoopState, name: str, record: StepRecord) -> LoopState:
    """Return the state with a step anew."""
    return msgspec.structs.replace(state, steps={**state.steps, name: record})


def inputs_digest(arguments: Iterable[str], files: Iterable[Path]) -> str:
    """Return a digest of a step's arguments and of the bytes that it reads."""
    content = [list(arguments), [file_digest(file) for file in files]]
    return hashlib.sha256(msgspec.json.encode(content)).hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file; '' where there is none."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_done(record: StepRecord | None, inputs: str) -> bool:
    """Return whether a step need not be run: same arguments, same input, and what it wrote is still so."""
    if record is None or record.outcome != "done" or record.inputs != inputs:
        return False
    return all(file_digest(Path(path)) == digest for path, digest in record.outputs.items())


def page_digest(state: LoopState, names: Iterable[str]) -> str:
    """Return a digest of what these steps found: what is signed."""
    shown = {
        name: (record.inputs, record.outputs, record.figures) for name in names if (record := state.steps.get(name))
    }
    return hashlib.sha256(msgspec.json.encode([shown, state.proposal], order="sorted")).hexdigest()
