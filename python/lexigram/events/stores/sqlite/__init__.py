"""SQLite stores: the embedded durable default."""
