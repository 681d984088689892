"""Wiring of this package into the framework's container. Source: spec/architecture.md."""
