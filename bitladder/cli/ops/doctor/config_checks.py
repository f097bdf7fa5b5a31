"""The configuration: where its values come from, and the machine's limits that they count on."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterator

from redis.exceptions import RedisError

from bitladder.cli.ops.asking import at_live_store
from bitladder.cli.ops.doctor.finding import Examined, Finding, fail, ok, skipped, warn
from bitladder.errors import BitladderError, ConfigError
from bitladder.queue.server.connection import MAX_CONNECTIONS
from bitladder.settings.live_values import with_live
from bitladder.settings.load import Loaded

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


def with_live_values(loaded: Loaded) -> tuple[Loaded, Finding]:
    """Return the settings as running processes have them, with what stands over them in Redis."""
    try:
        document = asyncio.run(at_live_store(loaded, lambda store: store.read()))
        live = with_live(loaded, document)
    except ConfigError as error:
        cure = "bitladder settings history says who changed it, bitladder settings unset KEY takes it back"
        return loaded, fail("config.live", "live settings", str(error), cure)
    except (BitladderError, RedisError, OSError) as error:
        return loaded, skipped("config.live", "live settings", f"Redis cannot be asked: {error}")
    count = len(document.values)
    return live, ok("config.live", "live settings", f"{count} values are set" if count else "none is set")


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
