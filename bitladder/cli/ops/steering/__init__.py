"""Commands by which operators steer: pause, resume, drain, purge, move, audit, and cancel by filter."""
