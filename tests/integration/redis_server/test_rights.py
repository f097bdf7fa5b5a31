"""What the check asks of a role's user is what compose/redis.acl grants that role, no less and no more."""

from __future__ import annotations

import re

import pytest

from bitladder.errors import ConfigError
from bitladder.queue.checks.rights import INTAKE, PRODUCER, WORKER, Rights
from bitladder.queue.checks.server_check import check_server_sync
from bitladder.queue.server.connection import connect_sync
from tests.conftest import ROOT, make_settings
from tests.integration.redis_server.test_redis_roles import Guarded

PASSWORD = "s3cret"  # noqa: S105  (of the test)
ROLES: dict[str, Rights] = {"intake": INTAKE, "worker": WORKER, "producer": PRODUCER}
# Granted, and not asked for: a process does without, needs it with some settings only, or a client library asks.
OPTIONAL = {"+ping", "+client|setinfo", "+select", "+acl|dryrun", "+wait", "+waitaof", "~bl:written"}
# What RQ's own producers need beside ours.
RQ_S = {"+multi", "+exec", "+discard", "+expire", "+persist", "+hgetall", "+smembers", "+srem", "+xread", "+xrevrange"}
RQ_S |= {"~rq:scheduled:*", "~rq:groups", "~rq:group:*", "%R~rq:results:*"}


def rules_of(role: str) -> list[str]:
    """Return the rules of the role in the file that ships, without its password."""
    text = re.sub(r"\\\n", " ", (ROOT / "compose" / "redis.acl").read_text(encoding="utf-8"))
    line = next(line for line in text.splitlines() if line.startswith(f"user {role} "))
    return re.findall(r"\(.*?\)|\S+", line)[5:]


def is_enough(server: Guarded, rules: list[str], role: str) -> bool:
    """Return whether the check lets a user with these rules be of that role."""
    with server.client("admin") as admin:
        admin.execute_command("ACL", "SETUSER", "less", "reset", "on", f">{PASSWORD}", *rules)
    settings = make_settings(server.url, redis__username="less", redis__password=PASSWORD).redis
    with connect_sync(settings) as client:
        try:
            check_server_sync(client, settings, ROLES[role])
        except ConfigError as error:
            return "compose/redis.acl" not in str(error)
    return True


@pytest.mark.parametrize("role", ROLES)
def test_each_right_that_a_role_lacks_is_noticed(server: Guarded, role: str) -> None:
    needed = [rule for rule in rules_of(role) if rule not in OPTIONAL and not (role == "producer" and rule in RQ_S)]

    assert is_enough(server, needed, role)
    assert [rule for rule in needed if is_enough(server, [other for other in needed if other != rule], role)] == []
