"""The control loop: what routing may promise of the losses that were measured, and the policy that keeps it."""
