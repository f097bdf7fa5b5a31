"""Files and batches: uploads, the store of their contents, and the work of batches."""
