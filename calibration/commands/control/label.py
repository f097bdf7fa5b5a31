"""calibrate label: what each tier loses on each prompt, against the reference."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from bitladder.errors import ConfigError
from bitladder.settings.checkpoint_digest import checkpoint_digest
from bitladder.settings.models_section import ModelSettings
from bitladder.settings.paths import in_cache
from bitladder.settings.sections import Settings
from calibration.artifacts.folder import require_other
from calibration.commands.configuration import load_configuration
from calibration.commands.engine_log import log_to_stderr
from calibration.commands.options import DEFAULT_URL, AsJson, Config, Url, key_option, progress_console, say
from calibration.control.asking.askers import Askers, LocalEngines, StackOptions, running_stack
from calibration.control.labelling.label_estimate import Estimate
from calibration.control.labelling.label_set import FILES, LabelRequest, label_set
from calibration.control.labelling.run_labelling import LabelOptions
from calibration.errors import CalibrationError, InputError
from calibration.evaluate.candidates import CheckpointArg, find_candidates
from calibration.evaluate.machine import engine_version, versions
from calibration.sandbox.choose import AUTO
from calibration.terminal.progress import Steps, duration
from calibration.terminal.tabular import table

OUT = Path("var/labels")
_RELIABLE = 0.7  # below it more answers are asked for: scores are then judged mostly by chance
_MAX_TOP_OF_A_STACK = 20  # vLLM's own limit, unless it is started with another one
_Prompts = Annotated[Path, typer.Argument(help='JSONL: {"prompt" or "text", "source", "kind", "check"}')]
_Reference = Annotated[str, typer.Option(help="the tier that the others are held against; --local: [TIER=]FOLDER too")]
_Tiers = Annotated[str, typer.Option(help="with commas between them; --local: [TIER=]FOLDER too")]
_Out = Annotated[Path, typer.Option("-o", "--out", help="folder of labels.jsonl, report.json, report.html")]
_ApiKey = Annotated[str | None, key_option("the scopes submit and read")]
_Local = Annotated[bool, typer.Option("--local", help="start engines here, one after another: no stack")]
_Chat = Annotated[bool | None, typer.Option("--chat/--no-chat", help="the chat template (default: where there is one)")]
_Temperature = Annotated[
    float, typer.Option(min=0, max=2, help="of answers, as your requests have it; 0: the likeliest, which may loop")
]
_KeepText = Annotated[bool, typer.Option("--keep-text", help="write the prompts into labels.jsonl")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="measure a few, and say what all would take")]


def register(app: typer.Typer) -> None:
    app.command("label")(label_command)


def label_command(
    prompts: _Prompts,
    reference: _Reference,
    tiers: _Tiers,
    out: _Out = OUT,
    url: Url = DEFAULT_URL,
    api_key: _ApiKey = None,
    local: _Local = False,
    model: Annotated[str, typer.Option(help="whose tiers, where there are several models")] = "",
    count: Annotated[int | None, typer.Option(min=1, help="label so many, drawn by chance")] = None,
    seed: Annotated[int, typer.Option(min=0, help="of the draw")] = 0,
    answers: Annotated[int, typer.Option(min=1, max=64, help="drawn for each prompt: their mean is its loss")] = 1,
    answer_tokens: Annotated[int, typer.Option(min=2, max=4096, help="of each answer, at most")] = 64,
    prompt_tokens: Annotated[int, typer.Option(min=16, help="longer prompts are cut")] = 512,
    temperature: _Temperature = 1.0,
    top: Annotated[int, typer.Option(min=2, max=1024, help="likely tokens that divergence looks at")] = 20,
    chat: _Chat = None,
    keep_text: _KeepText = False,
    dry_run: _DryRun = False,
    at_once: Annotated[int, typer.Option(min=1, max=256, help="jobs of a tier at a time")] = 8,
    redis_mb: Annotated[int, typer.Option(min=16, help="of outcomes that Redis keeps, within an hour")] = 512,
    sandbox: Annotated[str, typer.Option(help="for code: bubblewrap, monty, or auto")] = AUTO,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Measure what each tier loses on each prompt, against a reference, through the engines that serve.

    Jobs of the batch lane, at exactly one tier: nobody else waits for them. A run that was ended goes on where it was.
    Exit status 1 when some prompts could not be labelled (the others were), 6 when an engine failed.

    Example: bitladder calibrate label prompts.jsonl --reference fp8 --tiers int4,int8 --dry-run

    Example: bitladder calibrate label prompts.jsonl --local --reference bf16=~/models/bf16 --tiers int4,int8
    """
    out = _checked(out.expanduser(), prompts)
    read = load_configuration(config)
    log_to_stderr(read.log)
    if answers > 1 and not temperature:
        raise InputError(f"--answers must be 1 with --temperature 0, got {answers}: the likeliest answer is one")
    sizes = {"answer_tokens": answer_tokens, "prompt_tokens": prompt_tokens, "top": top}
    options = LabelOptions(**sizes, temperature=temperature, chat=chat)
    names = [tier.strip() for tier in tiers.split(",") if tier.strip()]
    request = LabelRequest(prompts, out, reference, names, count, seed, answers, options, keep_text, dry_run, sandbox)
    stack = None if local else StackOptions(url, api_key, model, "label", at_once, redis_mb)
    _show(run(request, stack, read, model), request, as_json=as_json)


def _checked(out: Path, prompts: Path) -> Path:
    for name in FILES:
        require_other(out / name, "--out", prompts)
    return out


@dataclass(frozen=True, slots=True)
class _Chosen:
    """What is asked, and the request with the tiers as they are called."""

    askers: Askers
    request: LabelRequest


def run(request: LabelRequest, stack: StackOptions | None, settings: Settings, model: str) -> dict[str, Any]:
    """Label; `stack` is None for local engines."""
    if len({request.reference, *request.tiers}) != len(request.tiers) + 1 or not request.tiers:
        raise InputError(f"--tiers must name other tiers than --reference, each once, got {','.join(request.tiers)!r}")
    return asyncio.run(_label(request, stack, settings, model))


async def _label(request: LabelRequest, stack: StackOptions | None, settings: Settings, model: str) -> dict[str, Any]:
    async with _at_stack(request, stack, settings) if stack else _locally(request, settings, model) as chosen:
        steps = Steps(progress_console())
        return await label_set(chosen.askers, chosen.request, steps, lambda guess: say(_estimate_text(guess)))


@asynccontextmanager
async def _at_stack(request: LabelRequest, options: StackOptions, settings: Settings) -> AsyncIterator[_Chosen]:
    if request.options.top > _MAX_TOP_OF_A_STACK:
        raise InputError(f"--top must be at most {_MAX_TOP_OF_A_STACK} at a running stack, got {request.options.top}")
    async with running_stack(options) as stack:
        for tier in (request.reference, *request.tiers):
            if tier not in stack.tiers:
                raise InputError(f"tier {tier!r} must be one of {', '.join(stack.tiers)}: {stack.model} has no other")
        if options.is_here and settings.worker.engine == "vllm" and stack.model in settings.models:
            stack.checkpoints = _local_digests(settings, stack.model) | stack.checkpoints
        unknown = [tier for tier in (request.reference, *request.tiers) if not stack.checkpoint(tier)]
        if unknown:
            names = ", ".join(unknown)
            say(f"the stack does not say which checkpoints serve {names}: if they change, use another --out")
        yield _Chosen(stack, request)


def _local_digests(settings: Settings, model: str) -> dict[str, str]:
    folders = {
        tier.name: in_cache(tier.checkpoint, settings.vllm.cache_dir)
        for tier in settings.models[model].tiers
        if tier.checkpoint
    }
    return {tier: checkpoint_digest(folder) for tier, folder in folders.items() if (folder / "config.json").is_file()}


@asynccontextmanager
async def _locally(request: LabelRequest, settings: Settings, model: str) -> AsyncIterator[_Chosen]:
    name = model or next(iter(settings.models))
    try:
        model_settings = settings.model(name)
    except ConfigError as error:
        raise InputError(str(error)) from error
    named = (request.reference, *request.tiers)
    arguments = [_argument(text, model_settings, settings) for text in named]
    reference, *tiers = find_candidates(arguments, model_settings, settings.vllm, say)
    if len(tiers) != len(request.tiers):
        raise InputError("--tiers must be other checkpoints than --reference, each once")
    engine = engine_version(settings.vllm)
    candidates = {candidate.name: candidate for candidate in (*tiers, reference)}
    askers = LocalEngines(candidates, settings.vllm, engine, request.options.top)
    tier_names = [candidate.name for candidate in tiers]
    yield _Chosen(askers, replace(request, reference=reference.name, tiers=tier_names, versions=versions(engine)))


def _argument(text: str, model: ModelSettings, settings: Settings) -> CheckpointArg:
    """Read a checkpoint: a tier of the configuration stands for what it serves."""
    tier = next((tier for tier in model.tiers if tier.name == text and tier.checkpoint), None)
    return CheckpointArg(in_cache(tier.checkpoint, settings.vllm.cache_dir), text) if tier else CheckpointArg.read(text)


def _estimate_text(guess: Estimate) -> str:
    parts = [
        f"{guess.prompts:,} prompts: about {duration(guess.seconds)}",
        f"{guess.requests:,} requests",
        f"{guess.prompt_tokens:,} tokens read and {guess.answer_tokens:,} written",
    ]
    parts += [] if guess.cost is None else [f"cost {guess.cost:.4g}"]
    parts += [] if guess.redis_mib is None else [f"{guess.redis_mib:,.0f} MiB of outcomes pass Redis"]
    return "estimate: " + ", ".join(parts)


def _show(report: dict[str, Any], request: LabelRequest, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(report))
    elif not request.dry_run:
        typer.echo(_text(report))
        for tier, figures in report["tiers"].items():
            if (again := figures["reliability"]) and again["whole"] < _RELIABLE:
                say(f"{tier}: the reliability is {again['whole']:.2f}: take more --answers than {request.answers}")
        say(f"{', '.join(FILES)} are in {request.out}")
    if not request.dry_run and report["not_labelled"]:
        first: Sequence[str] = list(report["failures"].values())[:1]
        raise CalibrationError(
            f"{report['not_labelled']} of {report['labels'] + report['not_labelled']} prompts could not be labelled; a "
            f"next run tries them again{': ' + first[0] if first else ''}"
        )


def _text(report: dict[str, Any]) -> str:
    rows = []
    for tier, figures in report["tiers"].items():
        for name, mean in figures["means"].items():
            rows.append((tier, name, f"{mean['value']:.4f} [{mean['low']:.4f}, {mean['high']:.4f}]", mean["n"]))
        again = figures["reliability"]
        if again:
            text = f"{again['whole']:.2f} (between {again['parts']} parts {again['between']:.2f})"
            rows.append((tier, "reliability of answer.kl", text, again["n"]))
        for feature, value in figures["spearman"].items():
            if value is not None:
                rows.append((tier, f"rank correlation with {feature}", f"{value:+.2f}", report["labels"]))
    return table(("tier", "what", "value", "prompts"), rows, title=f"{report['labels']:,} labels, [low, high]: 95 %")
