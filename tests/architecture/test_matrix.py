"""The Pythons that the classifiers name: a command tests them, and the README says which were tested."""

from __future__ import annotations

import os
import re
import subprocess

from tests.conftest import ROOT

VERSIONS = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', (ROOT / "pyproject.toml").read_text("utf-8"))


def make(*words: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # of an outer make
    command = ["make", "-s", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout


def test_the_matrix_names_what_is_not_installed_and_goes_on() -> None:
    said = make("matrix", "PYTHONS=3.999 3.998")

    assert said.splitlines() == ["Python 3.999: not installed here", "Python 3.998: not installed here"]


def test_the_matrix_has_every_python_that_the_classifiers_name() -> None:
    said = make("matrix", "HOME=/nowhere", "PATH=/usr/bin:/bin", "--dry-run")

    assert VERSIONS
    assert f"for version in {' '.join(VERSIONS)}; do" in said


def test_the_readme_names_the_pythons_that_were_tested() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    assert f"Python {', '.join(VERSIONS[:-1])} and {VERSIONS[-1]}" in readme
