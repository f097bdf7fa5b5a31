"""What every long-running process does alike: end on signals, watch its tasks, show figures of its own."""
