"""Comparing minimised objectives."""
