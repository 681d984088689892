"""Handler base classes, their registry and discovery."""
