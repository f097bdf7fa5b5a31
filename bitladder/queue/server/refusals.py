"""What a server says when it will not serve, and what to set so that it does."""

from __future__ import annotations

import re
from typing import NamedTuple


class Refusal(NamedTuple):
    """Why a server refuses, and what to do."""

    text: str  # "{redis}" stands for the server
    is_passing: bool = False  # it ends without a change of settings: waited for, like a server that does not answer
    is_quoted: bool = False  # what the server said belongs to it


REPLICA = Refusal(
    "{redis} is a read-only replica: redis.url must name the primary, or redis.sentinels the Sentinels that know it"
)
CLUSTER = Refusal(
    "{redis} runs in cluster mode, where the keys of one script lie on several servers: name a server with "
    "cluster-enabled no"
)
# By what is in the name of the error's class and its text: redis-py cuts the codes off that it knows.
_REFUSALS = {
    r"NOAUTH|Authentication required|HELLO must be called": Refusal(
        "{redis} asks for a password: set redis.password or redis.password_file, and redis.username where it has users"
    ),
    r"WRONGPASS|invalid username-password|AuthenticationError|AuthenticationWrongNumber": Refusal(
        "{redis} refuses the user or the password: check redis.username, and redis.password or redis.password_file"
    ),
    r"NoPermissionError|NOPERM": Refusal(
        "{redis} denies its user a right: give the user the rules of its role in compose/redis.acl", is_quoted=True
    ),
    r"DemotedError|ReadOnlyError|READONLY": REPLICA,
    r"MISCONF": Refusal(
        "{redis} refuses to write because it cannot write to its own disk: make room there, or mend what its log says",
        is_passing=True,
        is_quoted=True,
    ),
    r"NOREPLICAS": Refusal(
        "{redis} refuses to write until replicas follow it, as min-replicas-to-write says: start them",
        is_passing=True,
        is_quoted=True,
    ),
    r"CROSSSLOT|MOVED|CLUSTERDOWN|Cluster\w*Error|MovedError|Hash slot not served|in cluster mode": CLUSTER,
    r"DENIED .*protected mode": Refusal(
        "{redis} runs in protected mode: give it a password (requirepass), or set protected-mode no"
    ),
    r"DB index is out of range|Invalid Database": Refusal(
        "{redis} has no such database: the number at the end of redis.url must be below its setting databases"
    ),
    r"InvalidResponse|Protocol error": Refusal(
        "what answers as {redis} does not speak Redis' protocol: redis.url must name a Redis"
    ),
}
# Which server it is says nothing: it may be named ReadCluster.
_ADDRESS = re.compile(r"(?<=connecting to )\S+")


def refusal_of(error: BaseException) -> Refusal | None:
    """Return what an answer or a lost connection says about the server; None where it says nothing of that kind."""
    text = _ADDRESS.sub("", f"{type(error).__name__} {error}")
    return next((refusal for pattern, refusal in _REFUSALS.items() if re.search(pattern, text)), None)


def refused(refusal: Refusal, error: BaseException, redis: str = "Redis") -> str:
    """Return the line for a refusal."""
    line = refusal.text.format(redis=redis)
    return f"{line} ({str(error)[:200]})" if refusal.is_quoted else line
