"""Every route, with what it says of itself, and /openapi.json, which is made from that."""
