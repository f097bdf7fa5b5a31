"""Labels: what each tier loses on each prompt, against the reference."""
