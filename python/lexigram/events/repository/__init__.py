"""Repositories: collections of aggregates."""
