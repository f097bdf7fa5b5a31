"""One quantizer per folder at a time, nothing lost that it did not write, and room before the work begins."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from calibration.artifacts.folder import claimed, locked, require_disk_space, require_outside, staged
from calibration.errors import DiskFullError, InputError
from calibration.quantization.judging.heldout_groups import Heldout
from calibration.quantization.judging.kind_figures import Figures
from calibration.quantization.offload import OffloadLimit
from tests.calibration.conftest import GOOD, MakeBuilder, jobs
from tests.calibration.toy_quantizer import ToyQuantizer


def hold(cache: Path, held: Event, release: Event) -> None:
    with locked(cache, "int4", lambda: None):
        held.set()
        release.wait(20)


def test_a_second_quantizer_says_that_it_waits_and_then_skips(make_builder: MakeBuilder) -> None:
    measuring, may_finish, waiting = threading.Event(), threading.Event(), threading.Event()

    class SlowQuantizer(ToyQuantizer):
        def measure(
            self, checkpoint: Path, heldout: Heldout, memory: OffloadLimit | None = None
        ) -> Mapping[str, Figures]:
            measuring.set()
            assert may_finish.wait(20)
            return super().measure(checkpoint, heldout, memory)

    class Listener:
        def write(self, text: str) -> int:
            if "waiting for another process" in text:
                waiting.set()
            return len(text)

        def flush(self) -> None: ...

    first, second = SlowQuantizer(GOOD), ToyQuantizer(GOOD)
    one = threading.Thread(target=make_builder(first).make, args=[jobs("bf16")])
    two = threading.Thread(target=make_builder(second, output=Listener()).make, args=[jobs("bf16")])

    one.start()
    assert measuring.wait(20)
    two.start()
    assert waiting.wait(20), "the second quantizer should say that it waits"
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


def count(cache: Path, times: int) -> None:
    """Read a number, wait for others who might read it too, and write the next one."""
    for _ in range(times):
        with locked(cache, "int4", lambda: None):
            number = int((cache / "number").read_text())
            time.sleep(0.002)
            (cache / "number").write_text(str(number + 1))


def test_those_who_wait_hold_the_lock_one_after_the_other_and_the_last_leaves_no_file(cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "number").write_text("0")
    context = multiprocessing.get_context("spawn")
    counters = [context.Process(target=count, args=(cache, 20)) for _ in range(3)]

    for counter in counters:
        counter.start()
    for counter in counters:
        counter.join(60)

    assert (cache / "number").read_text() == "60"
    assert [path.name for path in cache.iterdir()] == ["number"]


def test_too_little_room_is_said_before_the_work_with_both_figures(tmp_path: Path) -> None:
    with pytest.raises(DiskFullError, match=r"1000000100 MB are needed in .*, \d+ MB are free"):
        require_disk_space(tmp_path, 1_000_000_000, "--cache")


def test_files_of_a_checkpoint_can_be_read_by_other_users(tmp_path: Path) -> None:
    with staged(tmp_path / "int4") as folder:
        (folder / "model.safetensors").write_text("weights")
        (folder / "model.safetensors").chmod(0o600)

    assert (tmp_path / "int4" / "model.safetensors").stat().st_mode & 0o777 == 0o644


def test_private_files_can_be_read_by_their_owner_alone_from_the_beginning(tmp_path: Path) -> None:
    with staged(tmp_path / "set", private=True) as folder:
        (folder / "texts.jsonl").write_text("prompts")
        assert folder.stat().st_mode & 0o777 == 0o700

    assert (tmp_path / "set").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "set" / "texts.jsonl").stat().st_mode & 0o777 == 0o600


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no luck"), staged(tmp_path / "int4"):
        raise RuntimeError("no luck")

    assert list(tmp_path.iterdir()) == []


def put(final: Path, weights: str) -> None:
    with staged(final) as folder:
        (folder / "weights").write_text(weights)


def test_a_build_replaces_the_one_before_and_leaves_nothing_else(tmp_path: Path) -> None:
    put(tmp_path / "int4", "old")
    put(tmp_path / "int4", "new")

    assert [path.name for path in tmp_path.iterdir()] == ["int4"]
    assert (tmp_path / "int4" / "weights").read_text() == "new"


def test_the_old_folder_comes_back_when_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "int4", "old")
    rename = Path.rename

    def broken(self: Path, target: Path) -> Path:
        if self.name == ".int4.partial":
            raise OSError("no more renames")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises(OSError, match="no more renames"):
        put(tmp_path / "int4", "new")

    assert [path.name for path in tmp_path.iterdir()] == ["int4"]
    assert (tmp_path / "int4" / "weights").read_text() == "old"


def claim(final: Path) -> None:
    with claimed(final, "--out", lambda folder: (folder / "weights").exists(), lambda: None):
        pass


@pytest.mark.parametrize("again", [claim, lambda final: put(final, "old")])
def test_a_folder_that_a_crash_left_without_its_name_is_found_again(
    tmp_path: Path, again: Callable[[Path], None]
) -> None:
    put(tmp_path / "int4", "old")
    (tmp_path / "int4").rename(tmp_path / ".int4.retired")
    (tmp_path / ".int4.partial").mkdir()  # and here the machine went down

    again(tmp_path / "int4")

    assert (tmp_path / "int4" / "weights").read_text() == "old"
    assert not (tmp_path / ".int4.retired").exists()
    assert not (tmp_path / ".int4.partial").exists()


def test_a_folder_is_claimed_that_is_new_or_empty_or_ours(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    put(tmp_path / "ours", "old")

    for name in ("new", "empty", "ours", "deep/er"):
        claim(tmp_path / name)

    assert (tmp_path / "ours" / "weights").read_text() == "old"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("keep", "it holds something else"),
        ("keep/thesis.txt", "it is a file"),
        ("dangling", "it is a link to nothing"),
        ("x" * 300, "File name too long"),
        ("/", "a file system is mounted there"),
        ("keep/thesis.txt/set", " that can be made, got .*: "),
        ("/proc/nowhere/set", " that can be made, got '/proc/nowhere/set': No such file or directory"),
    ],
)
def test_any_other_place_is_refused_with_the_option_that_named_it(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "keep").mkdir()
    (tmp_path / "keep" / "thesis.txt").write_text("precious")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")

    with pytest.raises(InputError, match=f"--out must be a .*folder.*{reason}"):
        claim(tmp_path / name)

    assert (tmp_path / "keep" / "thesis.txt").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["dangling", "keep", "thesis.txt"]


def test_a_path_in_another_is_told_however_it_is_spelled(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "model")

    for inside in ("model", "model/int4", "link", "link/int4", "other/../model"):
        with pytest.raises(InputError, match="--out must not be or lie in --model, got "):
            require_outside(tmp_path / inside, "--out", tmp_path / "model", "--model")
    require_outside(tmp_path / "model-int4", "--out", tmp_path / "model", "--model")
