"""An opt-in, redacted sample of the traffic, for calibration."""
