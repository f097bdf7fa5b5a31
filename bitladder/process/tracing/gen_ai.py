"""Names of attributes: those of OpenTelemetry's conventions for generative AI, v0.1.0 (status: Development), and ours.

The conventions still change. They are a repository of their own (open-telemetry/semantic-conventions-genai), and the
copies in OpenTelemetry's Python packages are deprecated: so the names that bitladder uses stand here, and only here.
"""

from __future__ import annotations

from collections.abc import Mapping

CONVENTIONS = "v0.1.0"
OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
ERROR_TYPE = "error.type"
# The value of PROVIDER: who answers a client.
BITLADDER = "bitladder"

# Ours.
JOB, REQUEST, TENANT = "bitladder.job.id", "bitladder.request.id", "bitladder.tenant"
MODEL, FLOOR, TIER, LANE = "bitladder.model", "bitladder.floor", "bitladder.tier", "bitladder.lane"
POLICY, REASON, ENTROPY = "bitladder.policy", "bitladder.reason", "bitladder.entropy"
WORKER, ATTEMPTS, OVERFLOWED_FROM = "bitladder.worker", "bitladder.attempts", "bitladder.overflowed_from"
STATE, COST, TTFT_MS = "bitladder.state", "bitladder.cost", "bitladder.time_to_first_token_ms"

_OPERATIONS: Mapping[str, str] = {
    "/v1/completions": "text_completion",
    "/v1/chat/completions": "chat",
    "/v1/messages": "chat",
    "/v1/responses": "chat",
    "/v1/embeddings": "embeddings",
}


def operation_of(path: str) -> str:
    """Return the operation's name for a route of the engine; one without a name in the conventions is its own."""
    return _OPERATIONS.get(path, path.removeprefix("/v1/"))
