"""The journal of a labelling run: what was measured, a line each, on disk before the next prompt is asked for.

A run that was killed goes on from it. A last line that was cut off is taken away; any other line that cannot be read is
an error. Records carry digests of all that they depend on, so that what is out of date is not used.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Self

import msgspec
import numpy as np

from calibration.artifacts.folder import replace_file
from calibration.artifacts.json_journal import add_lines, held, read_records, without_torn_line
from calibration.control.labelling.label_losses import OwnLabel, TaskLabel, TierLabel
from calibration.errors import InputError
from calibration.evaluate.distributions import Distributions, from_arrays, to_arrays

_MODE = 0o600  # it has the reference's answers


class ReferenceRecord(
    msgspec.Struct, frozen=True, kw_only=True, tag="reference", tag_field="record", omit_defaults=True
):
    """What the reference answers to a prompt, and its predictions along both."""

    id: str
    made_by: str  # digest of checkpoint, engine and settings
    check: str = ""  # LabelPrompt.conditions
    form: str  # chat or text
    along: str  # digest of the tokens of prompt and answer
    tokens: int  # of the answer
    own_answer: OwnLabel | None = None
    task: TaskLabel | None = None
    prompt: list[int] = []  # from here on only until every tier was measured
    answer: list[int] = []
    text: str = ""
    rows: bytes = b""  # calibration/evaluate/distributions.py, as npz


class TierRecord(msgspec.Struct, frozen=True, kw_only=True, tag="tier", tag_field="record", omit_defaults=True):
    """What a tier loses on a prompt."""

    id: str
    tier: str
    made_by: str
    along: str
    check: str = ""
    label: TierLabel


_Record = ReferenceRecord | TierRecord
_decode = msgspec.json.Decoder(_Record).decode


class Journal:
    """The records of one file, the newest of each kind; one process at a time writes it."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path, self._file = path, file
        self.references: dict[str, ReferenceRecord] = {}
        self.tiers: dict[tuple[str, str], TierRecord] = {}
        self.repaired = 0  # bytes of a line that was cut off

    @classmethod
    @contextlib.contextmanager
    def opened(cls, path: Path) -> Iterator[Self]:
        """Read the journal, or begin one.

        Raises:
            InputError: it cannot be written or read, or another process writes it.

        """
        taken = InputError(f"another run writes {str(path)!r}: wait for it, or choose another --out")
        with held(path, taken) as file:
            journal = cls(path, file)
            journal._read()
            yield journal

    def add(self, record: _Record) -> None:
        """Write a record; once this returns it outlasts a crash."""
        add_lines(self._path.parent, self._file, [record])
        self._take(record)

    def drop_answers(self) -> None:
        """Write the journal anew without texts, tokens and predictions: what they were for is done."""
        kept = [
            msgspec.structs.replace(record, prompt=[], answer=[], text="", rows=b"")
            for record in self.references.values()
        ]
        lines = b"".join(msgspec.json.encode(record) + b"\n" for record in (*kept, *self.tiers.values()))
        replace_file(self._path, lines, mode=_MODE)
        self.references = {record.id: record for record in kept}

    def _read(self) -> None:
        content, self.repaired = without_torn_line(self._file)
        for record in read_records(self._path, content, _decode, "no record of a labelling run; choose another --out"):
            self._take(record)

    def _take(self, record: _Record) -> None:
        if isinstance(record, ReferenceRecord):
            self.references[record.id] = record
        else:
            self.tiers[record.id, record.tier] = record


def packed(rows: Distributions) -> bytes:
    """Return predictions as a record keeps them."""
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **to_arrays([rows]))
    return file.getvalue()


def unpacked(content: bytes) -> Distributions:
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return from_arrays(file)[0]
