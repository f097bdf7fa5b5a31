"""The command: which checks there are, what is printed, and the exit status."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, NoReturn

import typer

from bitladder.cli.common_options import AsJson, Config
from bitladder.cli.ops.doctor.checkpoint_checks import check_checkpoints
from bitladder.cli.ops.doctor.config_checks import check_config, with_live_values
from bitladder.cli.ops.doctor.finding import Examined, Finding, Role, Status, fail
from bitladder.cli.ops.doctor.gpu_checks import check_gpu
from bitladder.cli.ops.doctor.intake_checks import check_keys, check_ports, check_store
from bitladder.cli.ops.doctor.machine_checks import check_disk, check_tls
from bitladder.cli.ops.doctor.redis_checks import check_redis
from bitladder.cli.ops.doctor.vllm_checks import check_vllm
from bitladder.cli.ops.doctor.worker_checks import check_workers
from bitladder.cli.output import ExitCode
from bitladder.errors import ConfigError
from bitladder.logs.setup import configure_logs
from bitladder.settings.hidden import hidden
from bitladder.settings.load import load_settings
from calibration.terminal.tabular import plain

GROUPS: dict[str, Callable[[Examined], Iterable[Finding]]] = {
    "config": check_config,
    "redis": check_redis,
    "tls": check_tls,
    "worker": check_workers,
    "checkpoints": check_checkpoints,
    "gpu": check_gpu,
    "vllm": check_vllm,
    "ports": check_ports,
    "keys": check_keys,
    "disk": check_disk,
    "store": check_store,
}
# Groups that look at settings which may be changed while the system runs.
_OF_LIVE = {"config", "gpu", "vllm"}
_COLOURS = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "red", Status.SKIPPED: "bright_black"}


def doctor(
    config: Config = None,
    role: Annotated[Role, typer.Option(help="What this machine is for: whose rights, ports and files.")] = Role.INTAKE,
    tier: Annotated[str | None, typer.Option(help="Only this tier's checkpoint and engine; it must be here.")] = None,
    only: Annotated[str | None, typer.Option(help=f"Only these groups, with commas: {','.join(GROUPS)}.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit status 1 for a warning, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what would keep this machine's processes from serving well, and its cure. It starts and changes nothing.

    Looks at the configuration, Redis, workers, checkpoints, GPUs, vLLM, ports, keys, disks and the store of files.

    Exit status: 0: nothing fails; 1: something does, or warns with --strict; 2: wrong arguments.

    Example: bitladder doctor --role worker --tier int4
    """
    configure_logs()
    findings = examine(config, role, tier, _chosen(only))
    counts = Counter(finding.status for finding in findings)
    worst = next((status for status in (Status.FAIL, Status.WARN) if counts[status]), Status.OK)
    if as_json:
        report = {"status": worst, "counts": {status: counts[status] for status in Status}}
        typer.echo(json.dumps(report | {"findings": [_as_json(finding) for finding in findings]}, indent=2))
    else:
        for finding in findings:
            _show(finding)
        typer.echo(", ".join(f"{counts[status]} {status}" for status in Status), err=True)
    is_bad = worst is Status.FAIL or (strict and worst is Status.WARN)
    _end(ExitCode.FAILED if is_bad else ExitCode.DONE)


def _end(status: ExitCode) -> NoReturn:
    """End the command. Threads of the bucket's library may still run, and abort a Python that ends around them."""
    if "obstore" in sys.modules:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    raise typer.Exit(status)


def examine(config: str | None, role: Role, tier: str | None, groups: Sequence[str]) -> list[Finding]:
    """Return what all checks of these groups say; a configuration that cannot be read is the only finding.

    Raises:
        ConfigError: no model has such a tier.

    """
    try:
        loaded = load_settings(config, with_keys=role is Role.INTAKE)
    except ConfigError as error:
        return [
            fail("config.load", config or "configuration", str(error), "correct what it names (docs/configuration.md)")
        ]
    findings: list[Finding] = []
    if not _OF_LIVE.isdisjoint(groups):
        loaded, live = with_live_values(loaded)
        findings += [live] if "config" in groups else []
    examined = Examined(loaded, role, tier)
    if not examined.tiers():
        names = sorted({name for model in loaded.settings.models.values() for name in model.ladder})
        raise ConfigError(f"--tier must be one of {', '.join(names)}, got {tier!r}")
    return findings + [finding for group in groups for finding in _of_group(group, examined)]


def _of_group(group: str, examined: Examined) -> list[Finding]:
    """Return what a group says. One that breaks is a finding: the others go on."""
    findings: list[Finding] = []
    try:
        findings.extend(GROUPS[group](examined))
    except Exception as error:
        text = f"the check itself broke: {type(error).__name__}: {error}"
        findings.append(fail(f"{group}.broken", group, text, "report it with bitladder version, and go on with --only"))
    return findings


def _chosen(only: str | None) -> list[str]:
    if only is None:
        return list(GROUPS)
    names = [name.strip() for name in only.split(",") if name.strip()]
    if unknown := [name for name in names if name not in GROUPS]:
        raise ConfigError(f"--only must name some of {', '.join(GROUPS)}, got {', '.join(unknown)[:80]!r}")
    if not names:
        raise ConfigError(f"--only must name some of {', '.join(GROUPS)}, got {only[:80]!r}")
    return [group for group in GROUPS if group in names]


def _as_json(finding: Finding) -> dict[str, Any]:
    cure = {"cure": finding.cure} if finding.cure else {}
    return {
        "check": finding.check,
        "status": finding.status,
        "subject": str(hidden(finding.subject)),
        "detail": str(hidden(finding.detail)),
        **cure,
    }


def _show(finding: Finding) -> None:
    status = typer.style(f"{finding.status:<8}", fg=_COLOURS[finding.status])
    subject, detail = plain(hidden(finding.subject)), "\n".join(map(plain, str(hidden(finding.detail)).splitlines()))
    typer.echo(f"{status}{finding.check:<22} {subject}: {detail}")
    if finding.cure:
        typer.echo(f"{'':8}cure: {plain(finding.cure)}")
