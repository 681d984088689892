"""Event schemas, their versions, and the conversion of old events on read."""
