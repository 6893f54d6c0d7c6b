"""What a run found, as numbers."""
