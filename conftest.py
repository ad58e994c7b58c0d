"""What every test run begins with, before anything loads torch; the kernels of tested notebooks inherit it."""

import os
from pathlib import Path

from sasrec_utils.mpd import has_slices  # the package itself sets how long threads wait for each other
from sasrec_utils.world import SIDECAR

# Two test workers with two threads each would fight for two cores: a worker gets one thread, and so do its kernels,
# unless you have set OMP_NUM_THREADS yourself.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Outputs of the notebooks are compared on made-up playlists, also where real slices lie in `data/raw`.
DATA = Path(__file__).resolve().parent / "data"
if "SASREC_DATA" not in os.environ and has_slices(DATA / "raw") and not (DATA / "raw" / SIDECAR).exists():
    os.environ["SASREC_DATA"] = str(DATA / "made-up")
