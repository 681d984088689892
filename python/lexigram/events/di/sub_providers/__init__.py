"""The four parts of the events provider."""
