"""Finding jobs where they lie: no index, the lists and registries of the queues are merged by time."""
