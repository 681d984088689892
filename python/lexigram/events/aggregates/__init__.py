"""Aggregates, entities and value objects."""
