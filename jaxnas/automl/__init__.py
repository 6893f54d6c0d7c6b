"""The search for large models' shapes, by their costs alone."""
