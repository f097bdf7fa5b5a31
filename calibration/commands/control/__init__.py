"""The commands of the control loop."""
