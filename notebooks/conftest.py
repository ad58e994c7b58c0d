"""Outputs of the notebooks are compared on made-up playlists, also where real slices lie in `data/raw`."""

import os
from pathlib import Path

from sasrec_utils.world import SIDECAR

DATA = Path(__file__).resolve().parent.parent / "data"

if (
    "SASREC_DATA" not in os.environ
    and next((DATA / "raw").glob("*.json"), None)
    and not (DATA / "raw" / SIDECAR).exists()
):
    os.environ["SASREC_DATA"] = str(DATA / "made-up")
