"""A year of flights through commands, aggregates, events, projections and a saga. Run it: `python -m examples.flights`."""
