"""Commands, events, queries, their metadata and context."""
