"""Command, query and event buses, and the dead letters of the event bus."""
