"""Take a newly published checkpoint, one worker at a time."""
