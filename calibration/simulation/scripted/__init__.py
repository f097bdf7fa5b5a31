"""The queue's own scripts on a virtual clock: what Redis would run runs here, over tables."""
