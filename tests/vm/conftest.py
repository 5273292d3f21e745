"""Tests on real QEMU share the network tests' way of having a network of their own."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "network"))
