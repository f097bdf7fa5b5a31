"""What keeps a running system in order: live settings, and sweeps of what other programs left."""
