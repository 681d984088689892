"""Read models kept up to date from the log: projections, the manager that runs them, rebuilds."""
