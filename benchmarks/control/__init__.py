"""The control loop on labels: what policies are worth, and whether promises are kept."""
