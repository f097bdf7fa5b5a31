"""The steps of a loop: which command each is, with what, and which files it reads and writes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from calibration.control.loop.loop_file import LoopFile, Options, as_arguments
from calibration.errors import InputError

SAMPLE, LABEL, TUNE, ABLATE, PROPOSE, CANARY, PROMOTE = NAMES = (
    "sample", "label", "tune", "ablate", "propose", "canary", "promote",
)  # fmt: skip
# What a person signs: all that stands before traffic is touched.
SIGNED = NAMES[: NAMES.index(PROPOSE) + 1]
# What the loop says itself, in each step's table.
_RESERVED = {
    SAMPLE: ("out", "json", "config"),
    LABEL: ("out", "json", "config", "url", "api-key", "dry-run"),
    TUNE: ("out", "json", "config"),
    ABLATE: ("out", "json", "policy", "cost", "measure"),
    CANARY: ("out", "json", "config", "url", "api-key", "policy", "candidate", "prompts", "yes", "watch"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step that is a command: `bitladder calibrate` with these arguments."""

    name: str
    arguments: tuple[str, ...]
    reads: tuple[Path, ...] = ()  # made by earlier steps, or by people
    writes: tuple[Path, ...] = ()
    tolerated: int = 0  # this exit status too means that it is done: what is missing is in its figures


def steps_of(loop: LoopFile, folder: Path) -> list[Step]:
    """Return the steps up to the proposal, in their order: nothing that is served changes by them.

    Raises:
        InputError: an option of any step is one that the loop says itself.

    """
    if "load" in loop.tune:
        raise InputError(
            "[tune] load: the ablation has no costs then; state those that `tune --load` shows as [tune] cost"
        )
    for name, reserved in _RESERVED.items():
        _refuse_reserved(name, getattr(loop, name), reserved)
    prompts, labels, policy = _prompts(loop, folder), folder / "labels" / "labels.jsonl", policy_of(folder)
    shared: Options = {name: loop.tune[name] for name in ("cost", "measure") if name in loop.tune}
    ablation: Options = {"out": str(folder / "ablation"), "policy": str(policy), **shared}
    sample = Step(
        name=SAMPLE,
        arguments=_arguments([SAMPLE], {"out": str(folder / "sample"), **_config(loop)}, loop.sample),
        writes=(prompts,),
    )
    labelling: Options = {"out": str(folder / "labels"), "url": loop.url, **_config(loop)}
    return [
        *([] if loop.prompts else [sample]),
        Step(
            name=LABEL,
            arguments=_arguments([LABEL, str(prompts)], labelling, loop.label),
            reads=(prompts,),
            writes=(labels,),
            tolerated=1,
        ),
        Step(
            name=TUNE,
            arguments=_arguments([TUNE, str(labels)], {"out": str(policy), **_config(loop)}, loop.tune),
            reads=(labels,),
            writes=(policy,),
        ),
        Step(
            name=ABLATE,
            arguments=_arguments([ABLATE, str(labels)], ablation, loop.ablate),
            reads=(labels, policy),
            writes=(folder / "ablation" / "report.json",),
        ),
    ]


def steps_on_traffic(loop: LoopFile, folder: Path, policy_name: str, proposal: str) -> list[Step]:
    """Return the steps that change what is served: the canary of a policy, and its promotion.

    Each proposal has a canary of its own: what became of an earlier one says nothing of it.
    """
    prompts, out = _prompts(loop, folder), str(folder / "canary" / proposal)
    trial: Options = {"out": out, "policy": policy_name, "prompts": str(prompts), "url": loop.url, **_config(loop)}
    trial["watch"] = False  # its promotion is the next step
    return [
        Step(
            name=CANARY,
            arguments=_arguments(["canary", "run"], trial, loop.canary),
            reads=(policy_of(folder), prompts),
        ),
        Step(name=PROMOTE, arguments=_arguments(["canary", "promote"], {"out": out, "url": loop.url}, {})),
    ]


def _prompts(loop: LoopFile, folder: Path) -> Path:
    return Path(loop.prompts) if loop.prompts else folder / "sample" / "heldout.jsonl"


def _config(loop: LoopFile) -> Options:
    return {"config": loop.config} if loop.config else {}


def policy_of(folder: Path) -> Path:
    """Return where `tune` writes the policy."""
    return folder / "policy.json"


def _arguments(command: Sequence[str], fixed: Options, options: Options) -> tuple[str, ...]:
    return (*command, "--json", *as_arguments(fixed), *as_arguments(options))


def _refuse_reserved(name: str, options: Iterable[str], reserved: tuple[str, ...]) -> None:
    for option in options:
        if option in reserved:
            where = {"cost": " (it is that of [tune])", "measure": " (it is that of [tune])"}.get(option, "")
            raise InputError(f"[{name}] {option}: the loop says it itself{where}; leave it out")
