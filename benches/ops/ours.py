"""Our operations: those shared with the published package, and the codec."""

from __future__ import annotations

import ops.lexigram  # noqa: F401 - registers the shared operations
