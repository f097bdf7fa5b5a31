"""Looks at a checkpoint before it serves: files, config, tensors, values, tokenizer. Needs no torch and no GPU."""
