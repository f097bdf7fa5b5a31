"""The `bitladder` command."""
