"""Policies change under load: no request is lost, every answer says who decided, and a broken one is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import httpx2

from tests.conftest import ROOT, Stack, wait_until

BODY = {"model": "smollm2", "prompt": "aa bb", "max_tokens": 4}
RULES = 'kind = "threshold"\nversion = {}\nrules = [{{ when = ["tokens > 99"], floor = "int4" }}]\notherwise = "{}"\n'


def replace(file: Path, text: str) -> None:
    beside = file.with_name(f".{file.name}")
    beside.write_text(text, encoding="utf-8")
    beside.rename(file)


class Load:
    """Clients that ask one after the other, while a block runs."""

    def __init__(self, url: str) -> None:
        self.answers: list[tuple[int, str, str]] = []
        self._url, self._is_over = url, False
        self._threads = [threading.Thread(target=self._ask) for _ in range(4)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        with httpx2.Client(base_url=self._url, timeout=60, verify=False) as http:
            while not self._is_over:
                answer = http.post("/v1/completions", json=BODY)
                name, floor = answer.headers.get("x-policy", ""), answer.headers.get("x-floor", "")
                self.answers.append((answer.status_code, name.partition(":")[0], floor))

    def wait(self, policy: str, floor: str) -> None:
        wait_until(lambda: self.answers[-1:] == [(200, policy, floor)], f"{policy} decides for {floor}")


def test_a_reload_under_load_loses_nothing_and_a_broken_policy_is_named(
    make_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    ladder = (ROOT / "bitladder.toml").read_text(encoding="utf-8")
    config, rules = tmp_path / "bitladder.toml", tmp_path / "rules.toml"
    config.write_text(ladder, encoding="utf-8")
    stack = make_stack(BITLADDER_CONFIG=str(config))
    stack.intake()
    stack.worker("int8")

    with Load(stack.url) as load:
        load.wait("article@1", "int4")
        rules.write_text(RULES.format(1, "int8"), encoding="utf-8")
        table = '[policy]\nname = "mine"\n[policies.mine]\nkind = "threshold"\nfile = "rules.toml"\n'
        replace(config, f"{table}\n{ladder}")
        load.wait("mine", "int8")
        replace(rules, RULES.format(2, "int2"))
        wait_until(lambda: stack.http.get("/readyz").json()["refused_change"], "the change is refused")
        ready = stack.http.get("/readyz")
        assert (ready.status_code, "not 'int2'" in ready.text, str(tmp_path) in ready.text) == (200, True, False)
        assert "bitladder_releases_refused 1.0" in stack.http.get("/metrics").text
        load.wait("mine", "int8")
        replace(rules, RULES.format(3, "int4"))
        load.wait("mine", "int4")

    wait_until(lambda: stack.http.get("/readyz").json()["refused_change"] is None, "it is mended")
    assert {status for status, _, _ in load.answers} == {200}
