"""The files of a checkpoint folder: no pickle, every shard there and whole, the index right. Opens headers only."""

from __future__ import annotations

import os
import re
from pathlib import Path

from calibration.inspection.json_text import parse_json
from calibration.inspection.tensor_file import FileError, Tensor, read_header
from calibration.inspection.verdict import CheckName, Findings

_INDEX = "model.safetensors.index.json"
# Loading one runs the code in it.
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.safetensors")


def read_tensors(folder: Path, findings: Findings) -> dict[str, Tensor]:
    """Return all tensors of the checkpoint by name, as far as they can be read."""
    _refuse_pickles(folder, findings)
    index = _read_index(folder, findings)
    present = {path.name for path in folder.glob("*.safetensors")}
    named = set(index.values()) if index is not None else present
    _compare_shards(present, named, index is not None, findings)
    tensors: dict[str, Tensor] = {}
    for name in sorted(present & named):
        _add_file(folder / name, tensors, findings)
    if index is not None:
        _compare_index(index, tensors, present, findings)
    if not tensors and not findings.has_failed(CheckName.FILES):
        findings.fail(CheckName.FILES, "there is no tensor in it")
    findings.ok(CheckName.FILES, f"{len(present & named)} of safetensors, {len(tensors)} tensors, no pickle")
    return tensors


def _refuse_pickles(folder: Path, findings: Findings) -> None:
    """Look in every folder: some programs find one that lies deeper, or is written in capitals."""

    def on_error(error: OSError) -> None:
        findings.fail(CheckName.FILES, f"{error.filename} cannot be read: {error.strerror}")

    for parent, folders, names in os.walk(folder, onerror=on_error):
        folders.sort()
        for path in (Path(parent, name).relative_to(folder) for name in sorted(names)):
            if path.suffix.lower() in _PICKLES:
                findings.fail(CheckName.FILES, f"{path}: pickle runs code when it is loaded; only safetensors serve")


def _read_index(folder: Path, findings: Findings) -> dict[str, str] | None:
    """Return tensor -> shard, None where there is no index."""
    path = folder / _INDEX
    if not path.exists():
        return None
    try:
        index = dict(parse_json(path.read_bytes())["weight_map"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        findings.fail(CheckName.FILES, f"{_INDEX} is damaged: {error!r:.200}")
        return None
    for tensor, shard in list(index.items()):
        if not isinstance(shard, str) or Path(shard).name != shard or not shard.endswith(".safetensors"):
            findings.fail(
                CheckName.FILES, f"{_INDEX}: {tensor} is in {shard!r}, expected a .safetensors file beside it"
            )
            del index[tensor]
    return index


def _compare_shards(present: set[str], named: set[str], is_indexed: bool, findings: Findings) -> None:
    if not present and not named:
        findings.fail(CheckName.FILES, "there is no .safetensors file")
    for name in sorted(named - present):
        findings.fail(CheckName.FILES, f"{name} is missing, {_INDEX} names it")
    for name in sorted(present - named):
        findings.warn(CheckName.FILES, f"{name} is not in {_INDEX}: engines do not read it")
    if is_indexed:
        return
    if len(present) > 1:
        findings.warn(CheckName.FILES, f"{len(present)} files without {_INDEX}: nothing says whether they are all")
    for name in sorted(_absent_numbers(present)):
        findings.fail(CheckName.FILES, f"{name} is missing, the names of the others count it")


def _absent_numbers(present: set[str]) -> set[str]:
    absent = set()
    for match in filter(None, (_SHARD.fullmatch(name) for name in present)):
        stem, _, count = match.groups()
        absent |= {f"{stem}-{number:05}-of-{count}.safetensors" for number in range(1, int(count) + 1)} - present
    return absent


def _add_file(path: Path, tensors: dict[str, Tensor], findings: Findings) -> None:
    try:
        file_tensors = read_header(path)
    except (FileError, OSError) as error:
        findings.fail(CheckName.FILES, str(error))
        return
    for tensor in file_tensors:
        if tensor.name in tensors:
            findings.fail(
                CheckName.FILES,
                f"{tensor.name} is in {tensors[tensor.name].file.name} and in {path.name}: which counts?",
            )
        tensors[tensor.name] = tensor


def _compare_index(index: dict[str, str], tensors: dict[str, Tensor], present: set[str], findings: Findings) -> None:
    for name, shard in index.items():
        if name in tensors and tensors[name].file.name != shard:
            findings.fail(CheckName.FILES, f"{name} is in {tensors[name].file.name}, {_INDEX} says {shard}")
        elif name not in tensors and shard in present and not findings.has_failed(CheckName.FILES):
            findings.fail(CheckName.FILES, f"{name} is not in {shard}, where {_INDEX} has it")
    for name in sorted(set(tensors) - set(index)):
        findings.fail(CheckName.FILES, f"{name} is in {tensors[name].file.name} and not in {_INDEX}")
