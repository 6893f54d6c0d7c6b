"""What saved models are worth to someone who writes code."""
