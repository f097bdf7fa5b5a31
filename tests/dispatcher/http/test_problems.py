"""dispatcher/http/problems.py: an error that a repeat would not change says so."""

from __future__ import annotations

import msgspec
import pytest

from bitladder.contract import NO_BODY, Outcome, State
from dispatcher.http.problems import outcome_problem


@pytest.mark.parametrize("status", [400, 408, 409, 422, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("state", [State.FAILED, State.EXPIRED, State.CANCELLED])
@pytest.mark.parametrize("answer", [NO_BODY, msgspec.Raw(b'{"error":{"message":"no"}}')])
def test_no_client_repeats_a_job_that_is_over(status: int, state: State, answer: msgspec.Raw) -> None:
    response = outcome_problem(Outcome(state=state, status=status, body=answer), {"X-Job-Id": "x"})

    assert response.status_code == status
    assert (response.headers["X-Should-Retry"], response.headers["X-Job-Id"]) == ("false", "x")
