"""The queue in Redis: RQ's key layout, moved by small Lua scripts."""
