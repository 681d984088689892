"""Decorators that mark handlers, projections and sagas, and that validate or deduplicate messages."""
