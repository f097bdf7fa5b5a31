"""Two intakes behind a proxy that people use, at the settings that ship: a client that offers HTTP/2, and a restart."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from tests.conftest import Stack, free_port, wait_until

BODY = {"model": "smollm2", "prompt": "a b c d", "max_tokens": 4}

NGINX = """
daemon off;
pid {folder}/pid;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  upstream intakes {{
    server 127.0.0.1:{first} max_fails=0;
    server 127.0.0.1:{second} max_fails=0;
    keepalive 16;
  }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://intakes;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_read_timeout 700s;
    }}
  }}
}}
"""
HAPROXY = """
defaults
  mode http
  timeout connect 2s
  timeout client 700s
  timeout server 700s
  option redispatch
  option http-no-delay
frontend clients
  bind 127.0.0.1:{port}
  default_backend intakes
backend intakes
  option httpchk GET /readyz
  default-server check inter 1s fall 2 rise 1
  server first 127.0.0.1:{first}
  server second 127.0.0.1:{second}
"""
CADDY = """
{{
  admin off
  auto_https off
}}
http://127.0.0.1:{port} {{
  reverse_proxy 127.0.0.1:{first} 127.0.0.1:{second} {{
    health_uri /readyz
    health_interval 1s
    flush_interval -1
    lb_try_duration 3s
  }}
}}
"""
PROXIES = {
    "nginx": (NGINX, ["nginx", "-e", "{folder}/log", "-c", "{file}"]),
    "haproxy": (HAPROXY, ["haproxy", "-db", "-f", "{file}"]),
    "caddy": (CADDY, ["caddy", "run", "--adapter", "caddyfile", "--config", "{file}"]),
}


@contextlib.contextmanager
def proxy(name: str, folder: Path, first: Stack, second: Stack) -> Iterator[str]:
    """Run a proxy before two intakes; yields its URL."""
    config, command = PROXIES[name]
    port, file = free_port(), folder / "config"
    file.write_text(config.format(folder=folder, port=port, first=first.port, second=second.port), encoding="ascii")
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [word.format(folder=folder, file=file) for word in command],
            stdout=output,
            stderr=output,
            env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        )

    def answers() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        assert process.poll() is None, (folder / "output").read_text()
        return False

    try:
        wait_until(answers, f"{name} listens")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def post_by_curl(url: str) -> str:
    command = ["curl", "--silent", "--http2", "--max-time", "20", "--data", json.dumps(BODY), f"{url}/v1/jobs"]
    return str(json.loads(subprocess.run(command, capture_output=True, check=True, timeout=30).stdout)["status"])


class Load:
    """Clients that send one awaited request after the other until they are told to stop."""

    def __init__(self, url: str) -> None:
        self.url, self.is_over, self.told = url, False, Counter[str]()

    def run(self) -> None:
        with httpx2.Client(base_url=self.url, timeout=60) as client:
            while not self.is_over:
                try:
                    answer = client.post("/v1/completions", json=BODY)
                    self.told["200" if answer.status_code == 200 else answer.text] += 1
                except httpx2.HTTPError as error:
                    self.told[repr(error)] += 1


@pytest.mark.parametrize("name", PROXIES)
def test_an_intake_is_restarted_behind_a_proxy_without_a_failed_request(
    make_stack: Callable[..., Stack], tmp_path: Path, name: str
) -> None:
    if not shutil.which(name) or not shutil.which("curl"):
        pytest.skip(f"{name} or curl is not installed")
    first, second = make_stack(), make_stack()
    del first.environment["BITLADDER_INTAKE__LAME_DUCK_S"]  # what the tests set is not what ships
    first.intake()
    second.intake()
    second.worker("int4")

    with proxy(name, tmp_path, first, second) as url, ThreadPoolExecutor(4) as pool:
        assert post_by_curl(url) == "queued"
        load = Load(url)
        clients = [pool.submit(load.run) for _ in range(4)]
        wait_until(lambda: load.told["200"] > 20, "requests are answered")
        first.processes[0].send_signal(signal.SIGTERM)
        status = first.processes[0].wait(40)
        first.intake()
        before = load.told["200"]
        wait_until(lambda: load.told["200"] > before + 50, "requests are answered by both")
        load.is_over = True
        for client in clients:
            client.result(60)

    assert status == 0
    assert set(load.told) == {"200"}
