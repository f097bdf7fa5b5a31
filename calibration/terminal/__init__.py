"""What calibration writes to a terminal: progress, and text that is safe to show."""
