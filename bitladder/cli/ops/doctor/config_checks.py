"""The configuration: where its values come from, and the machine's limits that they count on."""

from __future__ import annotations

import resource
from collections.abc import Iterator

from bitladder.cli.ops.doctor.finding import Examined, Finding, ok, warn
from bitladder.queue.server.connection import MAX_CONNECTIONS

_VARIABLE = "environment variable "
# Files of an idle intake, logs and checkpoints among them.
_OTHER_FILES = 256


def check_config(examined: Examined) -> Iterator[Finding]:
    """Yield what stands where."""
    loaded = examined.loaded
    models = ", ".join(f"{name} ({', '.join(model.ladder)})" for name, model in examined.settings.models.items())
    yield ok("config.load", str(loaded.config_file), f"read; models: {models}")
    yield from _sources(loaded.sources)
    release = loaded.release_file
    if release and release.exists():
        versions = {tier.published.version for _, tier in examined.tiers() if tier.published}
        shown = f"version {max(versions)}" if versions else "no tier takes its checkpoint from it"
        yield ok("config.release", str(release), shown)
    yield _open_files(examined)


def _sources(sources: dict[str, str]) -> Iterator[Finding]:
    """Yield a line for each source of values that are not defaults: files, the release, the environment."""
    keys_of: dict[str, list[str]] = {}
    for key, source in sorted(sources.items()):
        is_variable = source.startswith(_VARIABLE)
        name = source.removeprefix(_VARIABLE) if is_variable else key
        keys_of.setdefault("environment" if is_variable else source, []).append(name)
    for source, keys in keys_of.items():
        shown = ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
        yield ok("config.sources", source, f"{shown} (bitladder config show has all)")


def _open_files(examined: Examined) -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = float("inf") if soft == resource.RLIM_INFINITY else soft
    needed = examined.settings.intake.max_connections + MAX_CONNECTIONS + _OTHER_FILES
    if limit >= needed:
        return ok("config.open_files", "this shell", f"{soft} files may be open, an intake may need {needed}")
    return warn(
        "config.open_files",
        "this shell",
        f"{soft} files may be open; an intake with intake.max_connections = {examined.settings.intake.max_connections} "
        f"may need {needed}",
        f"ulimit -n {2 * needed}, LimitNOFILE={2 * needed} in systemd's unit, or fewer intake.max_connections",
    )
