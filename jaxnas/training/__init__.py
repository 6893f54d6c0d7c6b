"""Training: phases, settings, and the compiled loop."""
