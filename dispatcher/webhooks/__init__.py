"""Webhooks: signed messages to HTTP endpoints of clients, delivered from Redis by any intake (docs/api/webhooks.md)."""
