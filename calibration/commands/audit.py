"""calibrate audit: what the prompts look like, and where a policy would send them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from bitladder.settings.models_section import ModelSettings
from bitladder.settings.policy_section import PolicySettings, check_policy
from bitladder.settings.sections import Settings
from calibration.artifacts.folder import require_outside
from calibration.audit.aggregate import ALL, UNKNOWN, digits
from calibration.audit.compare import changes, read_audit
from calibration.audit.features import FEATURES
from calibration.audit.load_prompts import AuditedPrompts, from_set, from_source, in_words
from calibration.audit.run_audit import PAGE, AuditOptions, audit, check_out
from calibration.commands.configuration import load_configuration
from calibration.commands.options import MAX_CHARS, AsJson, Config, MaxChars, progress_console
from calibration.commands.sample import PACKAGED, open_source
from calibration.errors import InputError
from calibration.sample.sets import is_set
from calibration.terminal.escape import printable
from calibration.terminal.progress import Advance, Steps
from calibration.terminal.tabular import table

_MAX_GROUPS = 5
# How long it takes with the default count, on an idle core.
_DRAWING_S = 10


def register(app: typer.Typer) -> None:
    @app.command("audit")
    def command(
        source: Annotated[
            str, typer.Option(help="a sampled set, or a source as `calibrate sample` takes it")
        ] = PACKAGED,
        out: Annotated[Path, typer.Option(help="folder of the report")] = Path("var/calibration/audit"),
        count: Annotated[int, typer.Option(min=1, help="prompts looked at; of a set, all are")] = 1000,
        policy: Annotated[str | None, typer.Option(help="as policy.name has it (default: the model's)")] = None,
        model: Annotated[str | None, typer.Option(help="whose ladder counts, where there are several")] = None,
        seed: Annotated[int, typer.Option(help="another seed, other prompts")] = 0,
        max_chars: MaxChars = MAX_CHARS,
        plots: Annotated[bool, typer.Option(help="draw the figures, which takes two seconds")] = True,
        against: Annotated[Path | None, typer.Option(help="report of an earlier audit: say what has moved")] = None,
        endpoint_url: Annotated[str | None, typer.Option(help="of an S3 server that is not Amazon's")] = None,
        config: Config = None,
        as_json: AsJson = False,
    ) -> None:
        """Show the distribution of byte entropy and other features, and the share of each floor tier under a policy.

        Example: bitladder calibrate audit --source s3://logs/prompts/ --policy article

        Example: bitladder calibrate audit --source s3://logs/prompts/ --out var/december --against var/november
        """
        folder, settings = _checked_folder(out, source), load_configuration(config)
        served = _only_model(settings, model)
        question = AuditOptions(
            source=source,
            count=count,
            seed=seed,
            max_chars=max_chars,
            ladder=served.ladder,
            policy=_policy(settings, policy or served.policy or settings.policy.name, served.ladder),
            tables=settings.policies,
            with_plots=plots,
        )
        earlier = None if against is None else read_audit(against, question.ladder)
        figures = _run(question, folder, endpoint_url, config)
        moved = None if earlier is None else changes(earlier, figures)
        if as_json:
            typer.echo(json.dumps({"folder": str(folder), **figures, "changes": moved}))
        else:
            _show(figures, moved)
            typer.echo(str(folder / PAGE))


def _run(
    question: AuditOptions, folder: Path, endpoint_url: str | None, config: str | None
) -> dict[str, Any]:  # Any: JSON
    steps = Steps(progress_console())
    with steps.showing():
        with steps.step("audit", "reading prompts", expected_s=None) as advance:
            taken = _take(question, endpoint_url, config, advance)
        steps.note("audit", f"{len(taken.prompts):,} prompts read")
        with steps.step(
            "audit", "measuring and drawing" if question.with_plots else "measuring", expected_s=_DRAWING_S
        ):
            return audit(taken, question, folder)


def _checked_folder(out: Path, source: str) -> Path:
    folder, where = out.expanduser().resolve(), Path(source).expanduser()
    if where.exists():
        require_outside(folder, "--out", where, "--source")  # or the next audit, or sample, reads this one
    check_out(folder)
    return folder


def _show(figures: dict[str, Any], moved: dict[str, Any] | None = None) -> None:  # Any: JSON
    tables = [_floors_table(figures), _rules_table(figures), _features_table(figures, "kind")]
    if list(figures["tiers"]) != [UNKNOWN]:
        tables.append(_features_table(figures, "tier"))
    tables.append(_left_out(figures))
    if moved is not None:
        tables += [_floor_changes_table(moved), _median_changes_table(moved)]
    typer.echo("\n\n".join(tables) + "\n")


def _take(question: AuditOptions, endpoint_url: str | None, config: str | None, advance: Advance) -> AuditedPrompts:
    folder = Path(question.source).expanduser()
    if is_set(folder):
        return from_set(folder, question.max_chars)
    source = open_source(question.source, endpoint_url, config)
    return from_source(source, question.count, question.seed, question.max_chars, advance)


def _only_model(settings: Settings, model: str | None) -> ModelSettings:
    if model in settings.models:
        return settings.models[model]
    if model is not None or len(settings.models) != 1:
        raise InputError(f"--model must be one of {', '.join(settings.models)}, got {model!r}")
    return next(iter(settings.models.values()))


def _policy(settings: Settings, name: str, ladder: tuple[str, ...]) -> PolicySettings:
    """Return the configuration's policy settings under this name, which must not draw."""
    table = settings.policies.get(name)
    try:
        check_policy(name, settings.policies, {"of this audit": ladder})
    except ValueError as error:
        raise InputError(f"--policy {error}") from None
    if name.startswith("random:") or (table and table.kind == "split"):
        raise InputError(
            f"--policy must decide by prompts, and {name} draws: name one that it divides requests between"
        )
    return settings.policy.model_copy(update={"name": name})


def _floors_table(figures: dict[str, Any]) -> str:  # Any: JSON
    policy = figures["policy"]
    counts = {ALL: figures["prompts"], **figures["kinds"]}
    return table(
        ("kind", "prompts", *figures["ladder"]),
        [
            (printable(kind), counts[kind], *(f"{shares[tier]:.1%}" for tier in figures["ladder"]))
            for kind, shares in figures["floors_by_kind"].items()
        ],
        title=f"floor tier, policy {policy['name']}, entropy_bits {policy['entropy_bits']:g}",
    )


def _rules_table(figures: dict[str, Any]) -> str:  # Any: JSON
    return table(
        ("rule", *figures["ladder"]),
        [
            (printable(rule), *(f"{shares[tier]:.1%}" for tier in figures["ladder"]))
            for rule, shares in figures["floors_by_rule"].items()
        ],
        title="floor tier by the rule that chose it",
    )


def _floor_changes_table(moved: dict[str, Any]) -> str:  # Any: JSON
    rows = []
    for tier, change in moved["floors"].items():
        low, high = change["interval"]
        shares = (f"{change['earlier']:.1%}", f"{change['later']:.1%}", f"{change['difference']:+.1%}")
        rows.append((tier, *shares, f"{low:+.1%} to {high:+.1%}", "moved" if change["has_moved"] else ""))
    return table(
        ("tier", "earlier", "later", "difference", "95 % interval", "verdict"),
        rows,
        title="floor tiers, earlier and later" + ("" if moved["same_policy"] else " (under different policies)"),
    )


def _median_changes_table(moved: dict[str, Any]) -> str:  # Any: JSON
    rows = [
        (name, digits(change["earlier"]), digits(change["later"]))
        for name, change in moved["medians"].items()
        if change["has_moved"]
    ]
    title = "features that have moved by a quarter of their middle half"
    return table(("median of", "earlier", "later"), rows or [("none", "", "")], title=title)


def _features_table(figures: dict[str, Any], part: str) -> str:  # Any: JSON
    names = [ALL, *figures[f"{part}s"]][:_MAX_GROUPS]  # the others are in the report
    rows = []
    for feature in FEATURES:
        spreads = figures[f"features_by_{part}"][feature.name]
        rho = figures["correlation_with_entropy"].get(feature.name)
        numbers = [spreads[name]["p50"] for name in names] + [spreads[ALL]["p5"], spreads[ALL]["p95"]]
        rows.append((feature.name, *map(digits, numbers), "" if rho is None else f"{rho:+.2f}"))
    return table(
        ("median of", *map(printable, names), "5 %", "95 %", "rho"),
        rows,
        title=f"features by {part}; rho: Spearman's, with the entropy",
    )


def _left_out(figures: dict[str, Any]) -> str:  # Any: JSON
    skipped = in_words(figures["skipped"]) or "0"
    return printable(f"entries without a prompt: {skipped}; prompts that were cut: {figures['cut']:,}")
