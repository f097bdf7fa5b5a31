"""/v1/responses: a response is a job, read from its record; the engine's own store is never used."""
