"""The file of API keys: written whole, for its owner alone, by one command at a time; errors name the line."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from bitladder.errors import ConfigError
from bitladder.settings.access import KeySettings, key_hash
from bitladder.settings.keys_file import changing, read_keys
from bitladder.settings.load import load_settings
from tests.conftest import ROOT, wait_until

GOOD = f'hash = "{"0" * 64}"\ntenant = "acme"\n'
KEY = KeySettings.model_validate(
    {
        "hash": "1" * 64,
        "tenant": "acme",
        "expires": "2030-01-01",
        "defaults": {"floor": "int8", "lane": "batch", "allow_below_floor": True},
        "limits": {"ceiling": "int8"},
    }
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return where the file of keys is, beside a configuration."""
    (tmp_path / "bitladder.toml").write_text((ROOT / "bitladder.toml").read_text(encoding="utf-8"), encoding="utf-8")
    return tmp_path / "keys.toml"


def command(file: Path, *arguments: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "bitladder.cli.main", "keys", *arguments]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        words, cwd=file.parent, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def load(file: Path) -> dict[str, KeySettings]:
    return load_settings(str(file.with_name("bitladder.toml")), environ={}, with_keys=True).settings.auth.keys


def test_what_is_written_reads_the_same_and_is_for_its_owner_alone(file: Path) -> None:
    before = os.umask(0)
    with changing(file) as keys:
        keys["acme.ci"] = KEY
    os.umask(before)

    assert load(file) == {"acme.ci": KEY}
    assert file.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in file.parent.iterdir()) == ["bitladder.toml", "keys.toml"]


def test_a_file_that_others_could_read_is_closed_and_a_link_stays_one(file: Path) -> None:
    real = file.with_name("elsewhere.toml")
    real.write_text(f"[auth.keys.one]\n{GOOD}", encoding="utf-8")
    real.chmod(0o644)
    file.symlink_to(real)

    with changing(file) as keys:
        keys["two"] = KEY

    assert file.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o600
    assert list(load(file)) == ["one", "two"]


def test_a_change_that_fails_leaves_the_file_as_it_was(file: Path) -> None:
    text = f"[auth.keys.one]\n{GOOD}"
    file.write_text(text, encoding="utf-8")

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))  # as a full disk, in the middle of the file
    try:
        with pytest.raises(ConfigError, match=r"cannot write the file of API keys .*keys\.toml': File too large"):
            add_two(file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert file.read_text(encoding="utf-8") == text
    assert sorted(path.name for path in file.parent.iterdir()) == ["bitladder.toml", "keys.toml"]


def add_two(file: Path) -> None:
    with changing(file) as keys:
        keys["two"] = KEY


def test_no_key_is_lost_where_many_are_made_at_once(file: Path) -> None:
    processes = [command(file, "new", "--tenant", "acme", "--name", f"key-{number}") for number in range(4)]

    assert [process.wait(60) for process in processes] == [0] * 4
    assert sorted(load(file)) == [f"key-{number}" for number in range(4)]
    for process in processes:
        process.communicate()


def test_one_name_is_one_key_s_where_several_are_made_at_once(file: Path) -> None:
    processes = [command(file, "new", "--tenant", "acme", "--name", "same") for _ in range(3)]

    answers = [process.communicate(timeout=60) for process in processes]

    (key,) = [key for key, _ in answers if key]
    assert sorted(process.returncode for process in processes) == [0, 2, 2]
    assert load(file)["same"].hash.get_secret_value() == key_hash(key.strip().encode())


@pytest.mark.parametrize("options", [[], ["--at", "7d"]])
def test_a_key_may_be_revoked_by_two_commands_at_once(file: Path, options: list[str]) -> None:
    with changing(file) as keys:
        keys["one"] = KEY
    with changing(file) as keys:
        process = command(file, "revoke", "one", *options)  # has read the file, and waits for its turn
        wait_until(lambda: waits_for_a_lock(process), "it waits")
        del keys["one"]
    _, errors = process.communicate(timeout=60)

    assert (process.returncode, errors.count("Traceback")) == (0, 0)
    assert load(file) == {}


def waits_for_a_lock(process: subprocess.Popen[str]) -> bool:
    return f"-> FLOCK  ADVISORY  WRITE {process.pid} " in Path("/proc/locks").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[auth.keys.one]\nhash = \n", "at line 2"),
        (f"[auth.keys.one]\n{GOOD}\n[auth.keys.two]\nhash = 'bl-PASSWORD'\ntenant = 'x'\n", "line 6)"),
        (f"[auth.keys.one]\n{GOOD}scopes = [\n 'submit',\n 'root',\n]\n", "line 7)"),
        (f"[auth.keys.one]\n{GOOD}\n\n[auth.keys.two]\ntenant = 'x'\n", "keys.toml, line 6)"),
        (f"[auth.keys.one]\n{GOOD}expires = 'soon'\n", "line 4)"),
        ("[redis]\nurl = 'PASSWORD'\n", "must have tables [auth.keys.NAME], and nothing else"),
        ("auth = 3", "must have tables [auth.keys.NAME], and nothing else"),
        ("[auth]\nkeys = 3", "must have tables [auth.keys.NAME], and nothing else"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line_and_without_what_may_be_secret(
    file: Path, text: str, words: str
) -> None:
    file.write_text(text, encoding="utf-8")

    with pytest.raises(ConfigError) as caught:
        load(file)

    assert words in str(caught.value)
    assert "PASSWORD" not in str(caught.value)


def test_a_name_in_both_files_is_refused(file: Path) -> None:
    file.write_text(f"[auth.keys.one]\n{GOOD}", encoding="utf-8")
    with file.with_name("bitladder.toml").open("a", encoding="utf-8") as config:
        config.write(f"\n[auth.keys.one]\n{GOOD}")

    with pytest.raises(ConfigError, match=r"auth\.keys\.one is in the configuration and in .*keys\.toml"):
        load(file)


def test_there_may_be_no_file_and_only_intakes_read_it(file: Path) -> None:
    assert read_keys(file) is None
    file.write_text("broken", encoding="utf-8")

    assert load_settings(str(file.with_name("bitladder.toml")), environ={}).settings.auth.keys == {}


def test_keys_are_listed_without_themselves_and_revoked_by_name(file: Path) -> None:
    key, _ = command(file, "new", "--tenant", "acme", "--name", "one", "--expires", "90d").communicate()
    with file.with_name("bitladder.toml").open("a", encoding="utf-8") as config:
        config.write(f"\n[auth.keys.two]\n{GOOD}expires = 2020-01-01\n")

    listed, _ = command(file, "list").communicate()
    elsewhere = command(file, "revoke", "two")
    unknown = command(file, "revoke", "three")
    _, where = elsewhere.communicate()
    _, known = unknown.communicate()
    done, _ = command(file, "revoke", "one").communicate()

    header, one, two = [line.split("\t") for line in listed.splitlines()]
    assert header == ["name", "tenant", "scopes", "created", "expires", "state", "source"]
    assert one[:3] + one[5:] == ["one", "acme", "submit,read", "valid", str(file)]
    assert two[:6] == ["two", "acme", "submit,read", "", "2020-01-01T00:00:00Z", "expired"]
    assert key.startswith("bl-")
    assert key.strip() not in listed + file.read_text(encoding="utf-8")
    line = file.with_name("bitladder.toml").read_text(encoding="utf-8").splitlines().index("[auth.keys.two]") + 1
    assert f"key two is in bitladder.toml, line {line}: change it there" in where
    assert (elsewhere.returncode, unknown.returncode) == (2, 3)
    assert "there is no key named 'three'; there is " in known
    assert done == "one revoked\n"
    assert list(load(file)) == ["two"]


@pytest.mark.parametrize("when", ["yesterday", "2020-01-01", "0", "5y", "-3d"])
def test_a_time_that_is_none_or_past_is_refused(file: Path, when: str) -> None:
    process = command(file, "new", "--tenant", "acme", f"--expires={when}")
    _, errors = process.communicate()

    assert process.returncode == 2
    assert f"got {when!r}" in errors
    assert not file.exists()
