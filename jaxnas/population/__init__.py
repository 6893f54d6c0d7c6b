"""Who shares a compiled program, and running it."""
