"""The task that `calibrate quantize` checks in its own environment and hands to the quantizer's, as JSON."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NoReturn

from calibration.errors import WrongEnvironmentError
from calibration.quantization.estimate import Weights
from calibration.quantization.recipe import Recipe, Toolkit, recipe_from

# Imports these packages alone, by their paths: what else lies beside them belongs to another environment than the
# interpreter's. `python -P -m calibration` would need the folder above on the path, which may be site-packages.
_BOOT = """
import importlib.util, runpy, sys
root = sys.argv.pop(1)
for name in ("bitladder", "calibration"):
    spec = importlib.util.spec_from_file_location(name, f"{root}/{name}/__init__.py")
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
runpy.run_module("calibration", run_name="__main__", alter_sys=True)
"""
_STDIN = 0
# The make target of each toolkit's environment.
ENVIRONMENTS = {
    Toolkit.LLM_COMPRESSOR: "quantize-env",
    Toolkit.AUTOAWQ: "autoawq-env",
    Toolkit.ENGINE: "engine-env",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeTask:
    """One checkpoint to make."""

    recipe: Recipe
    cache: Path
    folder: str
    weights: Weights
    storage: str
    model: Path | None = None  # None: the example's
    samples: Path | None = None  # None: the recipe's own mix
    memory: int | None = None
    heldout: dict[str, list[str]] = field(default_factory=dict)  # of the samples' set, by kind
    standard: Path | None = None  # the checkpoint without samples, to compare with
    force: bool = False
    as_json: bool = False

    def to_json(self) -> str:
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> QuantizeTask:
        fields: dict[str, Any] = json.loads(text)
        recipe, weights = recipe_from(fields.pop("recipe")), fields.pop("weights")
        weights["linears"] = tuple((outputs, inputs) for outputs, inputs in weights["linears"])
        for name in ("cache", "model", "samples", "standard"):
            fields[name] = fields[name] and Path(fields[name])
        return cls(recipe=recipe, weights=Weights(**weights), **fields)


def find_interpreter(toolkit: Toolkit, named: Path | None) -> Path:
    """Return the interpreter of the toolkit's environment.

    Raises:
        WrongEnvironmentError: there is none.

    """
    python = named or Path(toolkit) / "bin" / "python"
    if not python.is_file() or not os.access(python, os.X_OK):
        raise WrongEnvironmentError(
            f"there is no interpreter {str(python)!r}; `make {ENVIRONMENTS[toolkit]}` sets the environment up, or name "
            "another with --python"
        )
    return python.absolute()


def exec_in(python: Path, task: QuantizeTask) -> NoReturn:
    """Replace this process by another interpreter that carries the task out."""
    command = [str(python), "-P", "-c", _BOOT, str(Path(__file__).parents[2]), "make"]
    with TemporaryFile() as file:  # not an argument: those have 128 KiB, and a model may have thousands of layers
        file.write(task.to_json().encode())
        file.seek(0)
        os.dup2(file.fileno(), _STDIN)
        os.execv(command[0], command)  # noqa: S606  (our own module)
