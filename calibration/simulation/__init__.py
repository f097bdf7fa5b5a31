"""A fleet under load on a virtual clock: what serves decides, service curves say how fast."""
