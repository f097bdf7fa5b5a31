"""What a checkpoint is measured on, and what is allowed."""
