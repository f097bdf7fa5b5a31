"""calibrate canary: a candidate for a share of the keys, until a test promotes it or takes the share back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from bitladder.errors import ConfigError
from bitladder.settings.load import Loaded, load_settings
from calibration.commands.options import DEFAULT_URL, AsJson, Config, ControlKey, Url, read_seconds, say
from calibration.control.canary.canary_prompts import PromptSource
from calibration.control.canary.canary_report import (
    POWER_HEADER,
    figures,
    pass_at_1_note,
    power_rows,
    write_report,
)
from calibration.control.canary.canary_stack import CanaryStack
from calibration.control.canary.pair_journal import CanaryState, read_pairs, read_state
from calibration.control.canary.power import Assumed, Power, simulate_power
from calibration.control.canary.run_canary import promote_canary, proposal_of, run_canary, stop_canary
from calibration.control.canary.spec import Measure, Spec
from calibration.control.canary.trial import RunOptions
from calibration.control.proposals.proposal_folder import ProposalStore
from calibration.errors import CalibrationError, InputError
from calibration.terminal.tabular import table

Out = Annotated[Path, typer.Option("-o", "--out", help="the canary's folder")]
Margin = Annotated[float, typer.Option(min=0, max=0.99, help="so much more loss is still good enough")]
Alpha = Annotated[float, typer.Option(min=1e-6, max=0.5, help="the chance of each wrong decision, at most")]
Watch = Annotated[
    bool, typer.Option("--watch/--no-watch", help="one that is fine, for --hours again, until somebody promotes it")
]
_MAX_PAIRS = 2000
# Of the candidate, in the time of its share.
_LOOKS = 4


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        no_args_is_help=True,
        help="Give a candidate a share of the keys, compare it with what serves now on the same prompts, and promote "
        "it or take the share back, as soon as a test that may be looked at any time has decided.\n\n"
        "Example: bitladder calibrate canary run -o var/canary --model smollm2 --candidate smollm2-next "
        "--prompts var/capture",
    )
    app.add_typer(group, name="canary")
    group.command("run")(_run)
    group.command("status")(_status)
    group.command("promote")(_promote)
    group.command("stop")(_stop)
    group.command("power")(_power)


def _run(
    out: Out,
    model: Annotated[str, typer.Option(help="whose keys get the candidate")],
    prompts: Annotated[Path, typer.Option(help="a file of prompts (JSONL), or a folder that intakes capture into")],
    candidate: Annotated[str, typer.Option(help="another model of the stack")] = "",
    policy: Annotated[str, typer.Option(help="or another policy for the model")] = "",
    share: Annotated[float, typer.Option(min=0.0001, max=0.9, help="of the keys")] = 0.1,
    hours: Annotated[float, typer.Option(min=0.001, max=720, help="without proof until then, it ends")] = 24.0,
    measure: Annotated[Measure, typer.Option(help="the loss of an answer")] = Measure.FLIPS,
    margin: Margin = 0.02,
    alpha: Alpha = 0.05,
    clip: Annotated[float, typer.Option(min=0.001, max=100, help="with kl: nats that count as a loss of 1")] = 1.0,
    reference: Annotated[str, typer.Option(help="the tier that answers are held against (default: the top)")] = "",
    tier: Annotated[str, typer.Option(help="compare at this tier alone (default: the policy's for each prompt)")] = "",
    answer_tokens: Annotated[int, typer.Option(min=1, max=4096, help="of each answer, at most")] = 48,
    max_wait: Annotated[str, typer.Option(help="how long a job may wait for the candidate")] = "30s",
    max_failed: Annotated[float, typer.Option(min=0, max=1, help="share of the candidate's jobs")] = 0.05,
    seed: Annotated[int, typer.Option(min=0, help="of the order of the prompts")] = 0,
    at_once: Annotated[int, typer.Option(min=1, max=64, help="pairs")] = 4,
    poll: Annotated[str, typer.Option(help="how often the candidate is looked at")] = "10s",
    lease: Annotated[str, typer.Option(help="the share ends by itself so long after this command was killed")] = "20m",
    watch: Watch = True,
    propose: Annotated[Path | None, typer.Option(help="write the promotion of one that is fine as a proposal")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="promote a candidate that is fine, without asking")] = False,
    url: Url = DEFAULT_URL,
    api_key: ControlKey = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Run a canary: a tenth of the keys for a day at most, by default. Called again, it goes on where it was.

    Exit status 0: it was promoted, or, with --no-watch, found fine; 1: the share was taken back.

    Example: bitladder calibrate canary run -o var/canary --model smollm2 --candidate smollm2-next --prompts var/capture

    Example: bitladder calibrate canary run -o var/canary --model smollm2 --policy tuned --prompts prompts.jsonl --yes
    """
    what = (model, candidate, policy, share, hours, measure, margin, alpha, clip, reference, tier, answer_tokens)
    spec = Spec(*what, read_seconds("--max-wait", max_wait), max_failed, seed)
    poll_s = read_seconds("--poll", poll)
    options = RunOptions(
        url=url, api_key=api_key, promotes=yes, watches=watch, at_once=at_once, poll_s=poll_s,
        lease_s=_lease_s(lease, poll_s), say=say,
    )  # fmt: skip
    raise typer.Exit(run(spec, prompts, out, load(config), options, propose, as_json=as_json))


def _lease_s(text: str, poll_s: float) -> float:
    seconds = read_seconds("--lease", text)
    if seconds < _LOOKS * poll_s:
        raise InputError(f"--lease must be {_LOOKS} times --poll at least ({_LOOKS * poll_s:g} s), got {text!r}")
    return seconds


def run(
    spec: Spec,
    prompts: Path,
    out: Path,
    loaded: Loaded,
    options: RunOptions,
    proposals: Path | None = None,
    *,
    as_json: bool,
) -> int:
    """Run a canary, and show what came of it; return the exit status."""
    max_pairs = _MAX_PAIRS
    if read_state(out) is None and (
        count := PromptSource(prompts, (), spec.seed).count(checked=spec.measure is Measure.TASK)
    ):
        max_pairs = min(count, max_pairs)
    powers = _powers(spec.margin, spec.alpha, Assumed(difference=0.0), max_pairs)
    if read_state(out) is None:
        say(_power_table(powers))

    def fine(state: CanaryState) -> None:
        write_report(out, state, read_pairs(out), powers)
        watched = f"and is watched for {spec.hours:g} h" if options.watches else "until it ends by itself"
        say(f"it keeps {spec.share:.0%} of the keys {watched}; all: `bitladder calibrate canary promote -o {out}`")
        if proposals is not None:
            _propose(state, out, proposals, options)

    state = run_canary(spec, prompts, out, loaded, replace(options, fine=fine))
    _show(out, state, powers, as_json=as_json)
    return 1 if state.phase in ("rolled back", "left alone") else 0


def _propose(state: CanaryState, out: Path, folder: Path, options: RunOptions) -> None:
    try:
        with CanaryStack(options.url, options.api_key) as steering:
            proposal = proposal_of(state, steering, figures(out, state, read_pairs(out)))
        proposal = ProposalStore(folder).add(proposal)
    except CalibrationError as error:  # the watch goes on
        say(f"not proposed: {error}")
        return
    say(f"proposed: `bitladder calibrate proposals apply {proposal.id} --proposals {folder}` promotes it")


def _status(out: Out, *, as_json: AsJson = False) -> None:
    """Show where a canary is, from its folder.

    Example: bitladder calibrate canary status -o var/canary
    """
    state = read_state(out)
    if state is None:
        raise InputError(f"there is no canary in {str(out)!r}")
    made = figures(out, state, read_pairs(out))
    typer.echo(json.dumps(made) if as_json else _as_table(made))


def _promote(out: Out, *, url: Url = DEFAULT_URL, api_key: ControlKey = None, as_json: AsJson = False) -> None:
    """Give a candidate that was found fine everything; how its release is published then, is said.

    Example: bitladder calibrate canary promote -o var/canary
    """
    state = promote_canary(out, RunOptions(url=url, api_key=api_key, say=say))
    if not state.is_over:
        say("the process that watches it promotes it at its next look")
        return
    _show(out, state, _powers(state.spec.margin, state.spec.alpha, Assumed(difference=0.0)), as_json=as_json)
    raise typer.Exit(0 if state.phase == "promoted" else 1)


def _stop(out: Out, *, url: Url = DEFAULT_URL, api_key: ControlKey = None, as_json: AsJson = False) -> None:
    """Take the share back, whether or not a process still runs the canary.

    Example: bitladder calibrate canary stop -o var/canary
    """
    state = stop_canary(out, RunOptions(url=url, api_key=api_key, say=say))
    if not state.is_over:
        say("the process that runs it takes the share back")
        return
    _show(out, state, _powers(state.spec.margin, state.spec.alpha, Assumed(difference=0.0)), as_json=as_json)


def _power(
    margin: Margin = 0.02,
    alpha: Alpha = 0.05,
    discordance: Annotated[float, typer.Option(min=0.001, max=1, help="share of the pairs that differ")] = 0.3,
    size: Annotated[float, typer.Option(min=0.001, max=1, help="of a difference")] = 0.2,
    as_json: AsJson = False,
) -> None:
    """Say how many pairs a decision takes, by simulation; nothing is asked or changed.

    Example: bitladder calibrate canary power --margin 0.02 --discordance 0.5 --size 0.1
    """
    powers = _powers(margin, alpha, Assumed(difference=0.0, discordance=discordance, size=size))
    if as_json:
        rows = [dict(zip(POWER_HEADER, row, strict=True)) for row in power_rows(powers)]
        typer.echo(json.dumps({"power": rows, "note": pass_at_1_note()}))
    else:
        typer.echo(_power_table(powers))


def load(config: str | None) -> Loaded:
    """Read the configuration, without live settings.

    Raises:
        InputError: it is missing or wrong.

    """
    try:
        return load_settings(config)
    except ConfigError as error:
        raise InputError(str(error)) from error


_FACTORS = (1.5, 2, 4)  # of the margin, by which a candidate is worse


def _powers(margin: float, alpha: float, assumed: Assumed, max_pairs: int = _MAX_PAIRS) -> list[Power]:
    """Return the power for a candidate as good, and for ones that are worse by some margins."""
    largest = assumed.discordance * assumed.size
    differences = [0.0, *(difference for factor in _FACTORS if (difference := factor * margin) <= largest)]
    return [
        simulate_power(
            Assumed(difference=difference, discordance=assumed.discordance, size=assumed.size),
            margin=margin,
            alpha=alpha,
            max_pairs=max_pairs,
            replays=100,
        )
        for difference in differences
    ]


def _power_table(powers: list[Power]) -> str:
    assumed = powers[0].assumed
    head = (
        f"power, where {assumed.discordance:.0%} of the pairs differ, by {assumed.size:g} each, up to "
        f"{powers[0].max_pairs:,} pairs:"
    )
    lines = [head, table(POWER_HEADER, power_rows(powers))]
    if len(powers) <= len(_FACTORS):
        largest = assumed.discordance * assumed.size
        lines.append(f"left out: larger differences than {largest:g}, which such pairs cannot have on average")
    return "\n".join([*lines, pass_at_1_note()])


def _show(out: Path, state: CanaryState, powers: list[Power], *, as_json: bool) -> None:
    made = write_report(out, state, read_pairs(out), powers)
    typer.echo(json.dumps(made) if as_json else _as_table(made))
    say(f"report: {out / 'report.html'}")


def _as_table(made: dict[str, Any]) -> str:
    low, high = made["interval"]
    rows = [
        ("candidate", made["candidate"]),
        ("phase", made["phase"]),
        ("why", made["why"]),
        ("now", made["now"]),
        *made["times"].items(),
        ("pairs", made["pairs"]),
        ("mean difference", made["mean_difference"]),
        ("interval", f"{low:+.4f} to {high:+.4f}"),
        *((f"e-value, {name}", f"{value:.3g}") for name, value in made["e_value"].items()),
        ("pairs while it waited", made["waiting"]["pairs"]),
        *((f"failed, {side}", count) for side, count in made["failed"].items()),
        ("requests of others", made["touched"]),
    ]
    return table(("what", "value"), [(name, "" if value is None else value) for name, value in rows])
