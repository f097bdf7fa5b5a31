"""tests/chaos/system/disk.py: what a loss of power takes from a real Valkey, and what it leaves."""

from __future__ import annotations

import time
from pathlib import Path

from tests.chaos.system.disk import Disk
from tests.chaos.valkey import Valkey

LOST_S = 0.4
# What Valkey has answered is in the file when it has written it: at once, or after a sync that is under way.
WRITTEN_S = 0.3


def test_what_was_written_in_the_last_moment_is_gone_and_all_before_it_is_kept(tmp_path: Path) -> None:
    disk, written = Disk(tmp_path), list[float]()
    with Valkey(tmp_path, "everysec") as valkey:
        disk.start()
        end = time.monotonic() + 3 * LOST_S
        while time.monotonic() < end:
            valkey.store.rpush("list", len(written))
            written.append(time.time())
        valkey.kill()
        ended_s = time.time()

        since_s = disk.cut(ended_s, LOST_S)
        valkey.start()
        kept = valkey.store.llen("list")
        disk.stop()

    assert ended_s - LOST_S - 0.2 < since_s <= ended_s - LOST_S
    assert sum(at_s < since_s - WRITTEN_S for at_s in written) <= kept < len(written)


def test_a_file_of_which_nothing_is_known_is_left_as_it_is(tmp_path: Path) -> None:
    assert Disk(tmp_path).cut(100.0, LOST_S) == 100.0
