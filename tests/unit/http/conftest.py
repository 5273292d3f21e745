from __future__ import annotations

from api_world import world

__all__ = ["world"]
