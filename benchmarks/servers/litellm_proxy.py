"""How to start LiteLLM's proxy as its documentation has it for production, before one OpenAI upstream."""

from __future__ import annotations

import http.client
import json
import os
import time
from pathlib import Path
from urllib.parse import urlsplit

_PYTHON = Path(__file__).resolve().parents[2] / ".venv-bench" / "litellm" / "bin" / "python"

# Its documentation's production checklist (docs.litellm.ai/docs/proxy/prod) without what needs a database or Redis.
# No callbacks and no cache; JSON logs neither, because at LITELLM_LOG=ERROR there is no line to format.
_CONFIG = """\
model_list:
  - model_name: smollm2
    litellm_params:
      model: openai/smollm2   # the provider that its load-test page recommends
      api_base: {api_base}
      api_key: sk-none
litellm_settings:
  set_verbose: false          # production checklist: debug logs off
  request_timeout: 600        # production checklist
router_settings:
  routing_strategy: simple-shuffle   # production checklist: best performance
"""

_ENVIRONMENT = {
    "LITELLM_MODE": "PRODUCTION",  # production checklist: load no .env file
    "LITELLM_LOG": "ERROR",  # production checklist: no log line per request; uvicorn's access log stops as well
    # The checklist asks for a master key. Without one the proxy looks up no credentials, which saves about a tenth of
    # its time, and bitladder's intake looks up none either. The proxy refuses to start so without this word.
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    # Every table that it would fetch at its start comes with the package too.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    "LITELLM_LOCAL_POLICY_TEMPLATES": "True",
    "LITELLM_LOCAL_AUTOROUTER_PRESETS": "True",
    "DISABLE_ADMIN_UI": "True",  # nobody looks at its web pages here
}


def command(port: int, upstream_url: str, folder: Path) -> tuple[list[str], dict[str, str]]:
    """Write the configuration into `folder`; return the command line and the whole environment of the proxy.

    The environment is built from nothing, because LiteLLM would take DATABASE_URL, REDIS_HOST, proxies, tracing and
    much more from ours. This version sends no telemetry: its `--telemetry` is a flag without effect.
    """
    if not _PYTHON.exists():
        message = (
            "LiteLLM is not installed: python3 -m venv .venv-bench/litellm && "
            ".venv-bench/litellm/bin/pip install --no-deps -r requirements/bench/litellm.txt"
        )
        raise RuntimeError(message)
    config = folder / "config.yaml"
    config.write_text(_CONFIG.format(api_base=json.dumps(f"{upstream_url.rstrip('/')}/v1")), encoding="utf-8")
    arguments = [
        *("--config", str(config)),
        *("--host", "127.0.0.1"),
        *("--port", str(port)),
        *("--num_workers", "1"),  # production checklist: one Uvicorn worker, more by replicas
        *("--keepalive_timeout", "75"),  # server tuning page; the default of 5 s cuts connections between two loads
    ]
    return [str(_PYTHON.with_name("litellm")), *arguments], {
        **_ENVIRONMENT,
        "PATH": os.defpath,
        "HOME": str(folder),
    }


def wait_ready(url: str, timeout_s: float) -> None:
    """Return once the proxy at `url` says that it lives."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=2)
        try:
            connection.request("GET", "/health/liveliness")
            if connection.getresponse().status == http.client.OK:
                return
        except (OSError, http.client.HTTPException):
            pass  # not listening yet
        finally:
            connection.close()
        time.sleep(0.1)
    message = f"LiteLLM at {url} was not ready within {timeout_s:g} s"
    raise TimeoutError(message)
