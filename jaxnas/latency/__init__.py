"""Latency by the clock: models to measure, their times, and what fits them."""
