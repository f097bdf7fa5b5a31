"""The OpenAI-compatible endpoints and the published OpenAPI document."""
