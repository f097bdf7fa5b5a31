"""The first lines of the `bitladder` command: hear signals, then load the rest (bitladder/cli/commands.py)."""

from __future__ import annotations

import sys

from bitladder.process.signals import end_at_once

# Commands that run until a signal ends them.
_SERVERS = ("up", "serve", "worker", "redis")


def main() -> None:
    """Run the command."""
    if sys.argv[1:2] and sys.argv[1] in _SERVERS:
        end_at_once()
    from bitladder.cli.commands import run  # what a server imports takes a second

    run()


if __name__ == "__main__":
    main()
