"""bitladder/settings/paths.py: the programs that make checkpoints and those that serve them know one folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bitladder.settings.load import load_settings
from bitladder.settings.paths import checkpoint_cache
from calibration.quantization.quantize_task import _BOOT
from tests.conftest import ROOT

EXAMPLE = str(ROOT / "bitladder.toml")


def environment(**variables: str) -> dict[str, str]:
    """Return a process's environment in which only these say where caches and settings are."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BITLADDER_", "XDG_"))}
    return {**kept, "BITLADDER_CONFIG": EXAMPLE, **variables}


def output_of(*command: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        env=environment(**variables),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


def looked_for_by_a_worker(**variables: str) -> str:
    """Return what a worker says of a checkpoint that is not there."""
    probe = (
        "from bitladder.settings.load import load_settings; from workers.engines.vllm_server import checkpoint_path; "
        "settings = load_settings().settings; checkpoint_path(settings.model('smollm2').tier('int4'), settings.vllm)"
    )
    return output_of("-c", probe, **variables)


def made_by_calibration(**variables: str) -> str:
    """Return what `calibrate quantize` says of where its checkpoint will be."""
    return output_of("-m", "calibration", "quantize", "--tier", "int4", "--python", "/nowhere", **variables)


@pytest.mark.parametrize("base", [None, "elsewhere"])
def test_checkpoints_are_served_from_where_they_are_made(base: str | None, tmp_path: Path) -> None:
    base = base and str(tmp_path / base)
    variables = {"HOME": str(tmp_path)} | ({"XDG_CACHE_HOME": base} if base else {})

    folder = Path(base or tmp_path / ".cache") / "bitladder" / "checkpoints" / "smollm2" / "int4"
    assert f"there is no model in '{folder}'" in looked_for_by_a_worker(**variables)
    assert f"{folder}: a checkpoint of " in made_by_calibration(**variables)


@pytest.mark.parametrize("value", ["", "relative/path", "."])
def test_an_empty_or_relative_cache_home_counts_as_unset(value: str) -> None:
    assert checkpoint_cache({"XDG_CACHE_HOME": value}) == checkpoint_cache({})
    assert checkpoint_cache({}).is_absolute()


def test_a_configured_cache_wins_and_the_source_of_each_is_said() -> None:
    environ = {"XDG_CACHE_HOME": "/x"}

    default = load_settings(EXAMPLE, environ=environ)
    chosen = load_settings(EXAMPLE, environ={**environ, "BITLADDER_VLLM__CACHE_DIR": "/y"})

    assert default.settings.vllm.cache_dir == "/x/bitladder/checkpoints"
    assert default.sources["vllm.cache_dir"] == "default, below $XDG_CACHE_HOME"
    assert chosen.settings.vllm.cache_dir == "/y"
    assert chosen.sources["vllm.cache_dir"] == "environment variable BITLADDER_VLLM__CACHE_DIR"


def test_the_environment_without_our_libraries_finds_it_too(tmp_path: Path) -> None:
    """As `calibrate quantize` enters the quantizer's: the standard library and these two packages, from anywhere."""
    probe = _BOOT.replace(
        'runpy.run_module("calibration", run_name="__main__", alter_sys=True)',
        "\n".join(
            (
                "from calibration.environment import example_folder",
                "print(example_folder())",
                "print([name for name in ('msgspec', 'pydantic', 'structlog', 'redis') if name in sys.modules])",
            )
        ),
    )
    command = [sys.executable, "-S", "-c", probe, str(ROOT)]  # -S: nothing that is installed

    done = subprocess.run(
        command, env=environment(XDG_CACHE_HOME="/x"), cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert done.stdout.split("\n")[:2] == ["/x/bitladder/checkpoints/smollm2", "[]"]
