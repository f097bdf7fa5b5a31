"""A shadow with all its parts: connected, its progress read, its requests behind the gate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx2

from bitladder.client.answers import authorization, base_url
from bitladder.process.signals import ending
from calibration.artifacts.folder import locked, try_writing
from calibration.control.asking.askers import StackOptions, running_stack
from calibration.control.asking.batch_requests import KeptBytes, TierRequests
from calibration.control.shadow.choosing import Choice
from calibration.control.shadow.gated_requests import GatedRequests, Purse
from calibration.control.shadow.idle_gate import Gate
from calibration.control.shadow.intake_view import IntakeView
from calibration.control.shadow.label_of_traffic import Labeller
from calibration.control.shadow.ledger import Budget
from calibration.control.shadow.progress_file import ShadowFolder
from calibration.control.shadow.run_shadow import Question, Shadow
from calibration.errors import EngineFailedError, InputError
from calibration.evaluate.engine import Asker

_HTTP_S = 60.0
_MIB = 2**20
# What outcomes of a shadow may hold in Redis within an hour.
_KEPT_MIB = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowOptions:
    """What is shadowed, how much and how."""

    stack: StackOptions
    capture: Path
    out: Path
    share: float
    seed: int
    without_tenants: frozenset[str]
    budget: Budget
    leave_free: float
    at_once: int
    answer_tokens: int
    temperature: float  # of answers
    question: Question


def run(
    options: ShadowOptions,
    every_s: float | None,
    show: Callable[[dict[str, Any]], None],
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Make one pass, or one after the other until a signal ends it; `show` gets the figures of each.

    Raises:
        InputError: an option is wrong, a file of the folder, or another shadow works in it.
        EngineFailedError: the stack does not answer.

    """
    try_writing(options.out, private=True)
    with locked(options.out, "shadow", partial(_refuse, options.out)):
        asyncio.run(_until_ended(options, every_s, show, say))


def _refuse(folder: Path) -> None:
    raise InputError(f"another shadow works in --out {str(folder)!r}")


async def _until_ended(
    options: ShadowOptions,
    every_s: float | None,
    show: Callable[[dict[str, Any]], None],
    say: Callable[[str], None],
) -> None:
    async with _shadowing(options, say) as (shadow, gate):
        for number in ending():
            asyncio.get_running_loop().add_signal_handler(number, gate.stop)
        while True:
            try:
                show(await shadow.run_pass())
            except EngineFailedError as error:
                if every_s is None:
                    raise
                say(f"{error}; the next pass is in {every_s:g} s")
            if every_s is None or await gate.stopped_within(every_s):
                return


@asynccontextmanager
async def _shadowing(options: ShadowOptions, say: Callable[[str], None]) -> AsyncIterator[tuple[Shadow, Gate]]:
    """Connect, and take up what earlier runs have done; the gate stops it.

    Raises:
        InputError: an option is wrong, or a file of the folder.
        EngineFailedError: no intake answers.

    """
    if not options.capture.is_dir():
        raise InputError(f"nothing is captured in {str(options.capture)!r}: set capture.share, and wait for requests")
    folder = ShadowFolder(options.out)
    progress = folder.load()
    stack_options = options.stack
    async with running_stack(stack_options) as stack, _http(stack_options) as http:
        view = IntakeView(http, stack.model)
        gate = Gate(view.load, leave_free=options.leave_free, max_wait_s=stack_options.grace_s)
        purse = Purse(options.budget, progress, folder)
        kept = KeptBytes(_KEPT_MIB * _MIB)

        def asker(tier: str) -> Asker:
            requests = TierRequests(http, tier, kept, stack_options.tag, stack_options.grace_s)
            return Asker(GatedRequests(requests, gate, purse), "", model=stack.model, at_once=options.at_once)

        askers = {tier: asker(tier) for tier in stack.tiers}
        shadow = Shadow(
            choice=Choice(
                capture=options.capture,
                share=options.share,
                seed=options.seed,
                model=stack.model,
                without_tenants=options.without_tenants,
            ),
            question=options.question,
            tiers=stack.tiers,
            view=view,
            purse=purse,
            folder=folder,
            label=Labeller(askers, stack.checkpoints_now, options.answer_tokens, options.temperature),
            at_once=options.at_once,
            say=say,
        )
        shadow.recall()
        yield shadow, gate


def _http(options: StackOptions) -> httpx2.AsyncClient:
    headers = authorization(options.api_key)
    return httpx2.AsyncClient(base_url=base_url(options.url), headers=headers, timeout=_HTTP_S, follow_redirects=False)
