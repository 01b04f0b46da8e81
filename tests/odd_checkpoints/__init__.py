"""Odd checkpoints, tiny and random, and what ``albert-serve convert`` must make of each of them.

``python -m tests.odd_checkpoints`` prints the table; ``tests/conversion/test_odd_checkpoints.py`` runs the same cases
and also compares the logits with PyTorch's.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # a folder that is not there may be a hub id, and no test may reach a network

from tests.odd_checkpoints import flags, refused, taken
from tests.odd_checkpoints.outcomes import Case, Converts, Refused, differences, run

CASES: list[Case] = [*taken.cases(), *refused.cases(), *flags.cases()]

__all__ = ["CASES", "Case", "Converts", "Refused", "differences", "run"]
