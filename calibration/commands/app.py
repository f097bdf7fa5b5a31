"""The commands of calibration, by name; only the file of the requested one is loaded.

Steps run in environments that have different libraries (docs/calibration.md), so `--help` must not import any.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

import typer

from calibration.errors import CalibrationError, WrongEnvironmentError
from calibration.terminal.escape import printable

# Name, and the line that `--help` shows; the command itself is in calibration/commands/<name>.py.
CHECKPOINT_STEPS = {
    "sample": "Take a mixed sample of real prompts, and split it into calibration and held-out texts.",
    "audit": "Show what prompts look like, and the share of each floor tier under a policy.",
    "checkpoints": "Make the checkpoints of SmolLM2-135M-Instruct that the example serves.",
    "quantize": "Make a checkpoint of any model by a recipe; says first why it cannot be done.",
    "inspect": "Look at checkpoints before they serve; exit status 1 when one must not.",
    "evaluate": "Measure checkpoints through the engine that serves them: quality, speed and memory, with intervals.",
    "publish": "Make measured checkpoints the ones that are served; exit status 1 when one is refused.",
    "rollback": "Publish a former release again, under a new version.",
    "releases": "Show the published release and those before it.",
}
# In calibration/commands/control/<name>.py.
CONTROL_STEPS = {
    "label": "Measure what each tier loses on each prompt; exit status 1 when some could not be labelled.",
    "tune": "Fit what each tier loses, and find the policy that a promise allows; exit status 1 when there is none.",
    "ablate": "Compare all policies on held-out labels: quality against cost, with bands, in one report.",
    "confidence": "Fit how sure a tier is of its answers: the calibration file of a cascade.",
    "proposals": "Show what steps of the control loop propose; apply it to a running stack, and take it back.",
    "canary": "Give a candidate a share of the keys; promote it, or take the share back.",
    "shadow": "Label live traffic: run a share of what low tiers answered again on the reference, in idle slots.",
    "drift": "Say whether prompts have moved, and whether the promise still holds; exit status 1 when it is broken.",
    "simulate": "Simulate requests on a fleet: latency, goodput, tier shares, overflow and cost.",
    "plan": "Find the cheapest fleet for requests, an SLO and a quality promise; exit status 1 when it misses the SLO.",
    "loop": "Go the whole way, from traffic to a promoted policy, with one page that a person signs.",
}
STEPS = CHECKPOINT_STEPS | CONTROL_STEPS
_PANELS = (("From traffic to checkpoints that serve", CHECKPOINT_STEPS), ("The control loop", CONTROL_STEPS))

# Steps that other steps start, in another environment: they are not listed.
INNER = ("make",)


def main(arguments: Sequence[str]) -> None:
    """Run one command; a CalibrationError is printed on stderr and ends with its exit code."""
    try:
        make_app(arguments)(args=list(arguments), prog_name="bitladder calibrate")
    except CalibrationError as error:
        message = "\n".join(map(printable, str(error).split("\n")))
        sys.stderr.write(f"error: {message}\n")
        sys.exit(error.exit_code)


def make_app(arguments: Sequence[str]) -> typer.Typer:
    """Build the command line with the step that the first argument names; the others are only listed."""
    app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    app.callback()(calibration)
    step = next(iter(arguments), None)
    for panel, steps in _PANELS:
        for name, summary in steps.items():
            if name != step:
                app.command(name, help=summary, rich_help_panel=panel)(calibration)
    if step in {*STEPS, *INNER}:
        _load(str(step), app)
    return app


def calibration() -> None:
    """From real traffic to checkpoints that are proven good before they serve: each step is a command."""


def _load(name: str, app: typer.Typer) -> None:
    folder = "calibration.commands.control" if name in CONTROL_STEPS else "calibration.commands"
    try:
        import_module(f"{folder}.{name}").register(app)
    except ModuleNotFoundError as error:
        raise WrongEnvironmentError(
            f"module {error.name!r} is missing here; `calibrate {name}` needs it: see docs/calibration.md, Environments"
        ) from error
