"""One maker per checkpoint at a time, and room before the work begins."""

from __future__ import annotations

import multiprocessing
import threading
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from calibration.errors import DiskFullError
from calibration.folder import locked, require_room, staged
from calibration.maker import Held, ToyMaker
from tests.calibration.conftest import GOOD, MakeWorkshop, jobs


def hold(cache: Path, held: Event, release: Event) -> None:
    with locked(cache, "int4", lambda: None):
        held.set()
        release.wait(20)


def test_a_second_maker_says_that_it_waits_and_then_skips(make_workshop: MakeWorkshop) -> None:
    measuring, may_finish, waiting = threading.Event(), threading.Event(), threading.Event()

    class SlowMaker(ToyMaker):
        def perplexity(self, checkpoint: Path, memory: Held | None = None) -> float:
            measuring.set()
            assert may_finish.wait(20)
            return super().perplexity(checkpoint, memory)

    class Listener:
        def write(self, text: str) -> int:
            if "waiting for another maker" in text:
                waiting.set()
            return len(text)

        def flush(self) -> None: ...

    first, second = SlowMaker(GOOD), ToyMaker(GOOD)
    one = threading.Thread(target=make_workshop(first).make, args=[jobs("bf16")])
    two = threading.Thread(target=make_workshop(second, output=Listener()).make, args=[jobs("bf16")])

    one.start()
    assert measuring.wait(20)
    two.start()
    assert waiting.wait(20), "the second maker should say that it waits"
    may_finish.set()
    one.join(20)
    two.join(20)

    assert (first.made, second.made) == (["bf16"], [])


def test_a_lock_dies_with_its_process(cache: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    holder = context.Process(target=hold, args=(cache, held, release))
    holder.start()
    assert held.wait(20)
    waits: list[bool] = []

    def kill_holder() -> None:
        waits.append(True)
        holder.kill()

    with locked(cache, "int4", kill_holder):
        pass

    holder.join(20)
    assert waits == [True]


def test_different_tiers_do_not_wait_for_each_other(cache: Path) -> None:
    waits: list[str] = []

    with locked(cache, "int4", lambda: waits.append("int4")), locked(cache, "int8", lambda: waits.append("int8")):
        pass

    assert waits == []


def test_too_little_room_is_said_before_the_work_with_both_figures(tmp_path: Path) -> None:
    with pytest.raises(DiskFullError, match=r"1000000100 MB are needed in .*, \d+ MB are free"):
        require_room(tmp_path, 1_000_000_000)


def test_published_files_can_be_read_by_other_users(tmp_path: Path) -> None:
    with staged(tmp_path, "int4") as folder:
        (folder / "model.safetensors").write_text("weights")
        (folder / "model.safetensors").chmod(0o600)

    assert (tmp_path / "int4" / "model.safetensors").stat().st_mode & 0o777 == 0o644


def test_a_build_that_fails_publishes_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no luck"), staged(tmp_path, "int4"):
        raise RuntimeError("no luck")

    assert list(tmp_path.iterdir()) == []
