"""SASRec on playlists: from slices of playlists to ten named next tracks. The modules are listed in the README."""

import os

# torch's OpenMP threads wait for each other in a busy loop. Beside any other busy process each then waits for the other
# to be given the processor, and everything takes eight times as long. A short spin costs nothing on a quiet machine and
# avoids this. It is read when torch is loaded, so it stands before every import; whoever has set either keeps theirs.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
