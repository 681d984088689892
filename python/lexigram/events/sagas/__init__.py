"""Long-running processes in steps that are stored, resumed after a crash and compensated on failure."""
