"""Real servers for the tests, one per file, each on loopback with its own data directory."""
