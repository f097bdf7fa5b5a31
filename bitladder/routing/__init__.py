"""From a prompt and an envelope to a floor tier: pure functions only."""
