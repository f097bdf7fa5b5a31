"""Whether a request is taken: by its expected wait, the room of its queue, and the budget of its key."""
