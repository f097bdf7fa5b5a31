"""What operators order and are shown, on a running stack."""
