"""A ladder is written whole or not at all: killed at every step, on a full disk, by two at once."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bitladder.errors import ConfigError
from bitladder.settings.load import load_settings
from bitladder.settings.release import Release, read_release
from calibration.errors import DiskFullError, InputError
from calibration.publishing.publish_tiers import Choice, publish
from calibration.publishing.release_file import ReleaseStore
from tests.calibration.publishing.scene import Scene
from tests.conftest import ROOT

ENVIRONMENT = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
WRITE = """
import sys
from pathlib import Path
from calibration.errors import CalibrationError
from calibration.publishing.release_file import ReleaseStore
from bitladder.settings.release import read_release

file = Path(sys.argv[1])
store = ReleaseStore(file, 20)
def write(note):
    with store.locked():
        ladder = store.present()
        store.write(ladder.model_copy(update={"version": store.next_version(), "note": note}))
"""
# A child per step dies there by SIGKILL: an audit event is a call to the operating system (open, rename, remove ...).
KILLED = (
    WRITE
    + """
import os, signal
file.parent.mkdir(exist_ok=True)
for step in range(1000):
    child = os.fork()
    if not child:
        seen = 0
        def count(event, arguments):
            global seen
            if event == "open" or (event.startswith(("os.", "fcntl.")) and event != "os.kill"):
                seen += 1
                if seen > step:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(count)
        write("x" * 3000)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    ladder = read_release(file)  # raises where it is not whole
    print(step, status, ladder.version, len(ladder.note), flush=True)
    if status == 0:
        break
"""
)
FULL = (
    WRITE
    + """
before = file.read_bytes()
try:
    write("x" * 500_000)
except CalibrationError as error:
    print(error.exit_code, error)
assert file.read_bytes() == before
assert sorted(path.name for path in file.parent.iterdir() if "partial" in path.name) == []
print([path.name for path in store.history.iterdir() if "partial" in path.name])
"""
)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    scene = Scene(tmp_path)
    choice = Choice(report=scene.report(scene.tier("int4")), tiers=("int4",))
    publish(choice, scene.settings, scene.store, lambda tier, text: None)
    return scene


def test_a_publisher_killed_at_any_step_leaves_the_old_ladder_or_the_new_one(scene: Scene) -> None:
    command = [sys.executable, "-c", KILLED, str(scene.file)]

    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    killed = [line for line in lines if line[1] != "0"]
    assert len(killed) > 8
    assert {line[1] for line in killed} == {"9"}
    assert lines[-1][1] == "0"
    # Until the rename it is the old one, from there on the new one; and the next publisher is not hindered.
    assert killed[0][2:] == ["1", "0"]
    assert int(lines[-1][2]) > 1
    present = read_release(scene.file)
    assert present
    assert len(present.note) == 3000
    assert sorted(scene.store.former())[0] == 1


def test_a_full_disk_leaves_the_old_ladder_and_is_named(scene: Scene) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare to have a small disk of its own")
    small = scene.folder / "small"
    small.mkdir()
    script = (
        f"mount -t tmpfs -o size=300k tmpfs {small} && cp {scene.file} {small}/ladder.toml && "
        f'exec {sys.executable} -c "$FULL" {small}/ladder.toml'
    )

    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script],
        env=ENVIRONMENT | {"FULL": FULL},
        capture_output=True,
        text=True,
        timeout=60,
    )

    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip(f"may not have a small disk of its own here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("4 the disk of ")
    assert done.stdout.endswith("[]\n")


def test_two_publishers_at_once_both_publish_one_after_the_other(scene: Scene) -> None:
    script = WRITE + "\nfor _ in range(20): write('x')"

    both = [subprocess.Popen([sys.executable, "-c", script, str(scene.file)], env=ENVIRONMENT) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]

    present = read_release(scene.file)
    assert present
    assert present.version == 41
    assert list(scene.store.former()) == list(range(21, 41))


def test_a_file_that_is_no_ladder_is_not_published_over(scene: Scene) -> None:
    scene.file.write_text("version = 'three'")

    with pytest.raises(InputError, match=r"version: .*integer.* got 'three'; move it away, or put one of"):
        ReleaseStore(scene.file, 20).present()


def test_a_place_that_cannot_be_written_is_named_with_its_reason(scene: Scene) -> None:
    ladder = scene.store.present()
    assert ladder
    store = ReleaseStore(scene.config / "ladder.toml", 20)
    with pytest.raises(InputError, match=r"publish.file: '.*toml/ladder.toml' cannot be written \(.*toml\); nothing"):
        store.locked().__enter__()

    (scene.folder / ".ladder.toml.history").write_text("no folder")
    before = scene.file.read_bytes()
    with pytest.raises(InputError, match=r"cannot be written \(File exists: .*history\); nothing changed"):
        scene.store.write(ladder)
    assert scene.file.read_bytes() == before


def test_a_disk_that_is_too_full_for_the_lock_is_a_full_disk(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("calibration.publishing.release_file.locked", full)

    with pytest.raises(DiskFullError, match=r"the disk of .*ladder.toml is full"):
        scene.store.locked().__enter__()


def test_what_no_process_could_read_is_not_written(scene: Scene) -> None:
    ladder, before = scene.store.present(), scene.file.read_bytes()
    assert ladder

    with pytest.raises(InputError, match=r"no process could read .* must be at most 1000000 bytes"):
        scene.store.write(ladder.model_copy(update={"version": 2, "note": "x" * 1_000_000}))

    assert scene.file.read_bytes() == before
    assert [path for path in scene.folder.iterdir() if "partial" in path.name] == []


def test_what_fails_once_a_ladder_is_published_does_not_take_it_back(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    ladder = scene.store.present()
    assert ladder
    scene.store.write(ladder.model_copy(update={"version": 2}))  # the folder of the history is there from now on

    def unsupported(path: Path) -> None:
        if path == scene.folder:
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr("calibration.publishing.release_file._sync_folder", unsupported)
    scene.store.write(ladder.model_copy(update={"version": 3}))

    present = scene.store.present()
    assert present
    assert present.version == 3


def test_the_history_counts_by_number_and_leaves_out_what_is_not_what_its_name_says(scene: Scene) -> None:
    ladder = scene.store.present()
    assert ladder
    for version in (999_999, 1_000_000, 1_000_001):
        scene.store.write(ladder.model_copy(update={"version": version}))
    shutil.copy(scene.file, scene.store.history / "ladder-000007.toml")

    assert list(scene.store.former()) == [1, 999_999, 1_000_000]
    assert scene.store.next_version() == 1_000_002


@pytest.mark.parametrize(
    ("written", "by_hand"),
    [
        ("value = 0.95", "value = 0.99"),
        ("version = 1", "version = 2"),
        ('reference = "bf16"', 'reference = "fp16"'),
        ('digest = "', 'digest = "0123456789abcdef" #'),
        ('{cache}/int4"', '{cache}/int8"'),
    ],
)
def test_a_ladder_that_was_changed_by_hand_is_refused(written: str, by_hand: str, scene: Scene) -> None:
    text = scene.file.read_text(encoding="utf-8")
    assert written in text
    scene.file.write_text(text.replace(written, by_hand, 1), encoding="utf-8")

    with pytest.raises(ConfigError, match=r"release '.*ladder.toml': "):
        load_settings(str(scene.config), environ={})
    with pytest.raises(InputError, match="move it away, or put one of"):
        scene.store.present()


def test_comments_and_layout_of_a_ladder_may_change(scene: Scene) -> None:
    text = scene.file.read_text(encoding="utf-8")
    scene.file.write_text(f"# seen by ops\n\n{text}", encoding="utf-8")

    assert read_release(scene.file)


def test_a_reader_never_meets_half_a_ladder(scene: Scene) -> None:
    script = WRITE + "\nwhile True: write('x' * 20_000)"
    writer = subprocess.Popen([sys.executable, "-c", script, str(scene.file)], env=ENVIRONMENT)
    seen: set[int] = set()
    try:
        end = time.monotonic() + 20
        while len(seen) < 10 and time.monotonic() < end:
            ladder = read_release(scene.file)
            assert isinstance(ladder, Release)
            seen.add(ladder.version)
    finally:
        writer.kill()
        writer.wait()

    assert len(seen) == 10
