"""Facades over the buses."""
