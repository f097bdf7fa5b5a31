"""Clients that never stop asking, while what serves them is changed."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import httpx2

from tests.conftest import wait_until

BODY = {"model": "smollm2", "prompt": "aa bb", "max_tokens": 8}


class SteadyClients:
    """Submit jobs to intakes in turn, as a balancer does: where one refuses the connection or is stopped, the next."""

    def __init__(self, *urls: str) -> None:
        self.ids: list[str] = []
        self._refused: list[str] = []
        self._urls, self._numbers = urls, itertools.count()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._submit)

    def _submit(self) -> None:
        while not self._stop.wait(0.02):
            self.submit()

    def submit(self, **body: Any) -> None:  # noqa: ANN401  (any field)
        """Submit one job."""
        first, said = next(self._numbers), []
        for turn in range(len(self._urls)):
            try:
                answer = httpx2.post(f"{self._urls[(first + turn) % len(self._urls)]}/v1/jobs", json=BODY | body)
            except httpx2.ConnectError as error:
                said.append(repr(error))
                continue
            if answer.status_code == 202:
                self.ids.append(answer.json()["id"])
                return
            said.append(answer.text)
        self._refused.append(" and ".join(said))

    def __enter__(self) -> SteadyClients:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        assert self._refused == []

    def go_on(self) -> None:
        """Wait until more jobs were accepted."""
        goal = len(self.ids) + 30
        wait_until(lambda: len(self.ids) >= goal, "more jobs are accepted")
