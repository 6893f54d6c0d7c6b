"""One run, from settings to the saved winner."""
