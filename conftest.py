"""What every test run begins with, before anything loads torch; the kernels of tested notebooks inherit it.

Two test workers with two threads each would fight for two cores: a worker gets one thread, and so do its kernels,
unless you have set OMP_NUM_THREADS yourself.
"""

import os

import sasrec_utils  # noqa: F401  sets how long threads wait for each other

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
