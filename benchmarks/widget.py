"""How long a reader of the picker waits: from the change of a control to everything that it sends to the page.

    python benchmarks/widget.py [--tracks 34000] [--changes 200] [--threads 2]

Runs the picker in a real kernel, as JupyterLab does, and times whole messages: one cell that makes one change, until
the kernel is idle again and all widget messages have arrived; only the browser's own drawing is missing. Playlists have
50 tracks. An untrained SASRec of the given size is as fast as a trained one; the others are fitted on random playlists;
the oracle's world is made with as many tracks.
"""

from __future__ import annotations

import argparse
import os
import time

import numpy as np
from jupyter_client.manager import start_new_kernel

SET_UP = """
import numpy as np, pandas as pd, torch
from sasrec_utils.baselines import ItemKNN, Markov, Popularity
from sasrec_utils.model import SASRec, SASRecConfig
from sasrec_utils.recommender import Recommender
from sasrec_utils.sequences import Sequences
from sasrec_utils.world import TEACHING, Oracle, World
from sasrec_utils.course.picker import PlaylistPicker
from dataclasses import replace
torch.set_num_threads({threads})
rng = np.random.default_rng(0)
world = World(replace(TEACHING, tracks={tracks}, artists={tracks} // 12, genres=24, moods=40))
n = world.n_tracks
drawn = world.playlists(1_000)
everything = Sequences(drawn.tracks + 1, drawn.offsets)
playlists = Sequences.from_lists([p[:51] for p in everything if len(p) >= 51])
text = {{c: [f"{{c}} {{i}}" for i in range(n)] for c in ("track_uri", "track_name", "artist_name", "album_name")}}
tracks = pd.DataFrame(text)
feature = np.append(0, rng.integers(1, n // 8, n))
features = dict(n_artists=n // 8, n_albums=n // 8)
shape = SASRecConfig(n, dim=128, heads=4, max_len=100, positions="relative", tied=False, **features)
model = SASRec(shape, feature, feature).eval()
model.keep_table()
scorers = {{
    "popularity": Popularity.fit(everything, n), "Markov": Markov.fit(everything, n),
    "item-kNN": ItemKNN.fit(everything, n), "oracle": Oracle(world, np.arange(-1, n), n), "SASRec": model,
}}
names = [f"{{w}} mix {{i}}" for i, w in zip(range(20_000), rng.choice(["chill", "rainy", "party"], 20_000))]
many = playlists.take(np.arange(20_000) % len(playlists))
picker = PlaylistPicker({{name: Recommender(scorer, tracks) for name, scorer in scorers.items()}}, many, names, tracks)
picker
"""
CHANGES = {
    "search among 20,000 names": "picker.search('mix {i}')",
    "pick another playlist": "picker.choose({i})",
    "let the models see less": "picker.turn(seen=10 + {i} % 40)",
    "show more": "picker.turn(shown=5 + {i} % 15)",
    "remove a track": "picker.remove(20) if {i} % 2 else picker.undo()",
    "move a track": "picker.move(20 + {i} % 2, 21 - {i} % 2)",
    "find a track": "picker.find('track_name {i}')",
    "add a track": "picker.add({i} + 1) if {i} % 2 else picker.undo()",
    "ask about another row": "picker.ask(0, 20 + {i} % 20)",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tracks", type=int, default=34_000)
    parser.add_argument("--changes", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    manager, client = start_new_kernel(env=os.environ | {"OMP_NUM_THREADS": str(args.threads)})

    def run(code: str) -> float:
        began = time.perf_counter()
        reply = client.execute_interactive(code, timeout=600, output_hook=lambda message: None)
        if reply["content"]["status"] != "ok":
            raise RuntimeError("\n".join(reply["content"]["traceback"]))
        return 1000 * (time.perf_counter() - began)

    try:
        run(SET_UP.format(tracks=args.tracks, threads=args.threads))
        each = max(10, args.changes // len(CHANGES))
        print("| models | change | p50 | p95 |\n|---|---|---|---|")
        for left, right in (("SASRec", "oracle"), ("SASRec", "Markov")):
            run(f"picker.compare({left!r}, {right!r}); picker.choose(0)")
            taken = []
            for name, change in CHANGES.items():
                times = [run(change.format(i=i)) for i in range(each + 3)][3:]
                taken += times
                show(f"{left}, {right}", name, times)
            show(f"{left}, {right}", "**all of these**", taken)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def show(models: str, name: str, times: list[float]) -> None:
    p50, p95 = np.percentile(times, [50, 95])
    print(f"| {models} | {name} | {p50:.0f} ms | {p95:.0f} ms |", flush=True)


if __name__ == "__main__":
    main()
