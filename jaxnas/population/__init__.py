"""Which candidates share a compiled program, and running it."""
