"""Make quantized checkpoints. Runs in the quantizer's environment: standard library, typer, rich and torch only."""
