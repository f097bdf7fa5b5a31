"""A server with the access rules that ship, for all who try what a role may do."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.integration.redis_server.test_redis_roles import SERVERS, Guarded


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    if request.param == "redis" and SERVERS["redis"] is None:
        pytest.skip("redis-server is not installed (apt-get install redis-server)")
    guarded = Guarded(tmp_path_factory.mktemp(request.param), request.param)
    guarded.start()
    yield guarded
    guarded.stop(signal.SIGKILL)
