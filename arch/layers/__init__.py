"""Layers that every family is built from."""
