"""bitladder loadtest: traffic of chosen kinds and rates at an intake, and how well it was served."""
