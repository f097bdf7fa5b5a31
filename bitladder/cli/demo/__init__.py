"""`bitladder demo`: start a private stack, send it prompts, and show who served each and at what price."""
