"""What an engine runs on: the processor, the GPUs, and whether they compute with a checkpoint's numbers."""
