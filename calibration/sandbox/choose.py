"""Choose the sandbox; without one, code is not run."""

from __future__ import annotations

from calibration.errors import InputError
from calibration.sandbox.bubblewrap import Bubblewrap, find_bubblewrap
from calibration.sandbox.program import Program, Sandbox
from calibration.sandbox.seccomp import seccomp_filter

AUTO = "auto"
NAMES = ("bubblewrap", "monty")
_TEST = "def check(candidate):\n    assert candidate(2) == 4\n"


def choose_sandbox(name_or_auto: str = AUTO) -> Sandbox:
    """Return the sandbox of this name, or the first one that works here; it is tested first.

    Bubblewrap comes first: it runs CPython, so that its figures can be compared with published ones.

    Raises:
        InputError: there is none; code that a model wrote is never run without one.

    """
    if name_or_auto not in (AUTO, *NAMES):
        raise InputError(f"--sandbox must be {AUTO}, {' or '.join(NAMES)}, got {name_or_auto!r}")
    problems = []
    for name in NAMES if name_or_auto == AUTO else (name_or_auto,):
        made = _bubblewrap() if name == "bubblewrap" else _monty()
        problem = made if isinstance(made, str) else _problem(made)
        if problem is None and not isinstance(made, str):
            return made
        problems.append(f"{name}: {problem}")
    raise InputError(
        f"no sandbox works here ({'; '.join(problems)}), and code that a model wrote is not run without one; install "
        "bubblewrap (Debian: apt-get install bubblewrap) or pydantic-monty, or evaluate with --problems 0"
    )


def _bubblewrap() -> Sandbox | str:
    if find_bubblewrap() is None:
        return "there is no bwrap on the PATH"
    if seccomp_filter() is None:
        return "the numbers of this processor's system calls are not known"
    return Bubblewrap()


def _monty() -> Sandbox | str:
    try:
        from calibration.sandbox.monty import MontySandbox
    except ImportError as error:
        return f"module {error.name!r} is missing"
    return MontySandbox()


def _problem(sandbox: Sandbox) -> str | None:
    """Test the sandbox with a right and a wrong answer; return what is wrong with it."""
    prompt = 'def double(x):\n    """Return twice x."""\n'
    right = Program(prompt=prompt, completion="    return 2 * x\n", test=_TEST, entry_point="double")
    wrong = Program(prompt=prompt, completion="    return x\n", test=_TEST, entry_point="double")
    try:
        verdict = sandbox.judge(right)
        if not verdict.passed:
            return verdict.reason
        return "it passes a wrong answer" if sandbox.judge(wrong).passed else None
    except (OSError, RuntimeError) as error:  # its program cannot be started
        return str(error)
