"""The Redis server below the queue: connections, passwords, durability, protocol version, failover, embedded server."""
