"""API keys change while intakes run: each takes a new one, and refuses a revoked or expired one, without a restart."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest

from bitladder.settings.access import key_hash, new_key
from bitladder.settings.load import load_settings
from tests.conftest import ROOT, Stack, wait_until
from tests.warm_start import BITLADDER

# A look each second, and what a busy machine takes to read the files.
SOON_S = 5


class Site:
    """Two intakes with one configuration."""

    def __init__(self, folder: Path, make_stack: Callable[..., Stack]) -> None:
        self.config, self.keys = folder / "bitladder.toml", folder / "keys.toml"
        self.config.write_text((ROOT / "bitladder.toml").read_text(encoding="utf-8"), encoding="utf-8")
        self.environment = {"BITLADDER_CONFIG": str(self.config), "BITLADDER_AUTH__KEYS_FILE": "keys.toml"}
        self.log = folder / "log"
        self.intakes = [make_stack(**self.environment) for _ in range(2)]

    def start(self) -> None:
        with self.log.open("ab") as output:
            for intake in self.intakes:
                intake.output = output
                intake.intake()

    def command(self, *arguments: str) -> str:
        done = BITLADDER.run("bitladder.cli.main", "keys", *arguments, env=self.intakes[0].environment)
        done.check_returncode()
        return done.stdout

    def new(self, *options: str) -> str:
        return self.command("new", "--tenant", "acme", *options).strip()

    def statuses(self, key: str | None) -> set[int]:
        """Return what the intakes say to a key."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        answers = [httpx2.get(f"{intake.url}/v1/models", headers=headers, timeout=20) for intake in self.intakes]
        return {answer.status_code for answer in answers}

    def wait(self, key: str | None, status: int) -> None:
        wait_until(lambda: self.statuses(key) == {status}, f"every intake says {status}", SOON_S)

    def has_logged(self, words: str) -> bool:
        return self.log.read_text(encoding="utf-8").count(words) == len(self.intakes)


@pytest.fixture
def site(tmp_path: Path, make_stack: Callable[..., Stack]) -> Site:
    return Site(tmp_path, make_stack)


def test_a_key_is_good_at_every_intake_from_when_it_is_made_until_it_is_revoked(site: Site) -> None:
    site.start()
    assert site.statuses(None) == {200}  # on loopback, without any key

    first, second = site.new("--name", "first"), site.new("--name", "second")
    site.wait(None, 401)  # from the first key on
    site.wait(first, 200)
    site.wait(second, 200)

    site.command("revoke", "first")
    site.wait(first, 401)
    assert site.statuses(second) == {200}

    site.command("revoke", "second")
    site.wait(second, 401)
    assert site.statuses(None) == {401}  # the last key opened nothing


def test_a_key_expires_by_itself_and_its_user_is_told(site: Site) -> None:
    site.new()
    site.start()
    moment = datetime.now(UTC) + timedelta(seconds=6)
    key = site.new("--expires", moment.isoformat())
    site.wait(key, 200)
    wait_until(lambda: site.statuses(key) == {401}, "it has expired")

    answer = httpx2.get(f"{site.intakes[0].url}/v1/models", headers={"Authorization": f"Bearer {key}"})

    assert datetime.now(UTC) >= moment.replace(microsecond=0)
    assert "this API key has expired on" in answer.json()["error"]["message"]


def test_what_cannot_be_taken_is_logged_and_leaves_the_keys_as_they_were(site: Site) -> None:
    key = site.new()
    site.start()

    text = site.keys.read_text(encoding="utf-8")
    site.keys.write_text(text + "[auth.keys.broken]\nhash = 3\n", encoding="utf-8")
    wait_until(lambda: site.has_logged("keys.toml, line"), "every intake says what is wrong", SOON_S)
    site.keys.unlink()
    wait_until(lambda: site.has_logged("is gone; an empty one revokes them all"), "every intake says so", SOON_S)
    assert (site.statuses(key), site.statuses(None)) == ({200}, {401})

    site.keys.write_text("", encoding="utf-8")

    site.wait(key, 401)
    assert site.statuses(None) == {401}


def test_keys_of_the_configuration_change_as_well(site: Site) -> None:
    key = new_key()
    before = site.config.read_text(encoding="utf-8")
    site.config.write_text(
        f'{before}\n[auth.keys.one]\nhash = "{key_hash(key.encode())}"\ntenant = "acme"\n', encoding="utf-8"
    )
    site.start()
    assert site.statuses(key) == {200}

    site.config.write_text(before, encoding="utf-8")

    site.wait(key, 401)
    assert site.statuses(None) == {401}  # until a restart, which may open an intake on loopback


def test_keys_of_an_intake_for_web_pages_are_made_and_revoked_as_others(site: Site) -> None:
    for stack in site.intakes:
        stack.environment["BITLADDER_INTAKE__CORS_ORIGINS"] = '["https://app.example.org"]'
    assert not load_settings(str(site.config), environ=site.intakes[0].environment).settings.auth.keys  # as workers do
    key = site.new("--name", "only")
    site.start()
    assert (site.statuses(key), site.statuses(None)) == ({200}, {401})

    site.command("revoke", "only")

    site.wait(key, 401)
    assert site.statuses(None) == {401}
