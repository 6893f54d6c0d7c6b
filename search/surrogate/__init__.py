"""A model of the objectives, and what it proposes."""
