"""The examples of the operators' pages run as they stand there."""
