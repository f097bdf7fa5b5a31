"""The folder of proposals: one JSON file each, one writer at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from calibration.artifacts import digest
from calibration.artifacts.folder import locked, replace_file, writing
from calibration.control.proposals.proposal import Proposal, is_alike, is_id, is_same, moved
from calibration.errors import InputError

DEFAULT_FOLDER = Path("var/proposals")
_MAX_BYTES = 4 * 2**20
_OPTION = "--proposals"


class ProposalStore:
    """The proposals in a folder."""

    def __init__(self, folder: Path, on_wait: Callable[[], None] = lambda: None) -> None:
        self.folder = folder
        self._on_wait = on_wait

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only one who changes proposals in this folder."""
        with writing(self.folder, _OPTION), locked(self.folder, "proposals", self._on_wait):
            yield

    def read(self, proposal_id: str) -> Proposal:
        """Return one proposal.

        Raises:
            InputError: there is none of this id, or its file is damaged.

        """
        if not is_id(proposal_id) or not self._path(proposal_id).is_file():
            raise InputError(f"there is no proposal {proposal_id[:80]!r} in {str(self.folder)!r}")
        return self._read(self._path(proposal_id))

    def all(self) -> tuple[list[Proposal], list[str]]:
        """Return all proposals, the latest first, and what is wrong with files that are none."""
        proposals, problems = [], []
        for path in sorted(self.folder.glob("*.json"), reverse=True):
            try:
                proposals.append(self._read(path))
            except InputError as error:
                problems.append(str(error))
        return proposals, problems

    def add(self, proposal: Proposal, contents: Mapping[str, bytes] | None = None) -> Proposal:
        """Write a proposal, and the files that it would put in place; return the one that stands for it.

        An open one that would change the same is only noted again, with the new reason and evidence. An open one of the
        same command about the same settings is dismissed: the later one stands for it.
        """
        with self.locked():
            for earlier in self.all()[0]:
                if earlier.state != "open" or earlier.undo is not None or not is_alike(earlier, proposal):
                    continue
                if is_same(earlier, proposal):
                    newer = msgspec.structs.replace(earlier, reason=proposal.reason, evidence=proposal.evidence)
                    # Once: a command that runs every few minutes would make the file grow for as long as nobody looks.
                    if not any(event.note == _AGAIN for event in newer.history):
                        newer = moved(newer, "open", at=proposal.created_at, author=proposal.author, note=_AGAIN)
                    self.write(newer)
                    return newer
                note = f"{proposal.id} stands for it"
                self.write(moved(earlier, "dismissed", at=proposal.created_at, author=proposal.author, note=note))
            for name, content in (contents or {}).items():
                self.keep(name, content)
            self.write(proposal)
        return proposal

    def write(self, proposal: Proposal) -> None:
        content = msgspec.json.format(msgspec.json.encode(proposal), indent=1) + b"\n"
        replace_file(self._path(proposal.id), content)

    def keep(self, name: str, content: bytes) -> None:
        """Write a file that belongs to a proposal."""
        replace_file(self._beside(name), content)

    def kept(self, name: str) -> bytes:
        """Return a file that belongs to a proposal.

        Raises:
            InputError: it cannot be read.

        """
        try:
            return self._beside(name).read_bytes()
        except OSError as error:
            raise InputError(f"cannot read {str(self._beside(name))!r}: {error.strerror}") from error

    def _beside(self, name: str) -> Path:
        if Path(name).name != name or name.endswith(".json") or name.startswith("."):
            raise InputError(f"the file of a proposal must be a name that does not end in .json, got {name[:80]!r}")
        return self.folder / name

    def _path(self, proposal_id: str) -> Path:
        return self.folder / f"{proposal_id}.json"

    def _read(self, path: Path) -> Proposal:
        try:
            with path.open("rb") as file:
                content = file.read(_MAX_BYTES + 1)
            if len(content) > _MAX_BYTES:
                raise InputError(f"{path}: no proposal: more than {_MAX_BYTES:,} bytes")
            proposal = msgspec.json.decode(content, type=Proposal)
        except OSError as error:
            raise InputError(f"cannot read {str(path)!r}: {error.strerror}") from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InputError(f"{path}: no proposal: {error}") from error
        if proposal.id != path.stem:
            raise InputError(f"{path}: no proposal: it says that its id is {proposal.id}")
        return proposal


_AGAIN = "proposed again"


def file_digest(path: Path) -> str | None:
    """Return the SHA-256 of a file, or None where there is none."""
    try:
        return digest.file_digest(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r}: {error.strerror}") from error
