import os
from pathlib import Path

ROOT = Path(__file__).parents[2]  # of the repository
# Seconds for what takes its time; 120 is what is promised of a usual computer, on which no other test runs beside it.
PATIENCE = float(os.environ.get("LAB_TEST_PATIENCE", 120)) * (2 if "PYTEST_XDIST_WORKER" in os.environ else 1)
