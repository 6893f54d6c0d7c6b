"""Text, token after token."""
