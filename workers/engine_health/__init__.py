"""Whether the engine is well: watch, circuit breaker, whose fault a failure was, and pauses it asked for."""
