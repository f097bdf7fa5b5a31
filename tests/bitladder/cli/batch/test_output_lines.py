"""bitladder/cli/batch/output_lines.py: a file's errors read as they would have over HTTP."""

from __future__ import annotations

import msgspec
import pytest

from bitladder.cli.batch.output_lines import output_line
from bitladder.contract import Outcome, State
from dispatcher.http.problems import outcome_problem


@pytest.mark.parametrize("code", ["engine_fault", None])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 429, 500, 502, 503])
def test_a_failed_line_has_the_error_that_its_intake_would_have_answered(status: int, code: str | None) -> None:
    outcome = Outcome(state=State.FAILED, status=status, code=code, error="it broke")

    line = msgspec.json.decode(output_line("run-1", "a", outcome))

    assert line["response"]["body"] == msgspec.json.decode(outcome_problem(outcome, {}).body)
