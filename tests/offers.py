"""Clients that offer HTTP/2 to a server without TLS with every request, as they do without being told to."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

# Each URL gets one POST, each answer's body a line.
JAVA = """
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

public class Post {
    public static void main(String[] given) throws Exception {
        var client = HttpClient.newHttpClient();
        for (int number = 1; number < given.length; number++) {
            var body = HttpRequest.BodyPublishers.ofString(given[0]);
            var request = HttpRequest.newBuilder(URI.create(given[number])).POST(body).build();
            System.out.println(client.send(request, HttpResponse.BodyHandlers.ofString()).body());
        }
    }
}
"""


def post_by_curl(body: str, *urls: str) -> list[dict[str, Any]]:
    """Return the JSON of the answers; the test is skipped where there is no curl."""
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    command = ["curl", "--silent", "--http2", "--max-time", "20", "--data-binary", body]
    answers = [subprocess.run([*command, url], capture_output=True, check=True, timeout=30).stdout for url in urls]
    return [json.loads(answer) for answer in answers]


def post_by_java(folder: Path, body: str, *urls: str) -> list[dict[str, Any]]:
    """Return the JSON of the answers; the test is skipped where there is no Java that compiles."""
    if not shutil.which("javac"):
        pytest.skip("Java is not installed, or without its compiler")
    source = folder / "Post.java"
    source.write_text(JAVA, encoding="ascii")
    done = subprocess.run(["java", source, body, *urls], capture_output=True, text=True, check=False, timeout=90)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
