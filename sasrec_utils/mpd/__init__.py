"""Million Playlist Dataset (MPD) slices in, tables out.

`read_slice` shows one slice as two tables. `prepare` turns any number of slices into Parquet tables with small integer
ids, slice by slice: its memory holds the vocabulary of tracks but never all rows. `Catalogue` translates between
Spotify URIs, ids and names. Taught in notebook 01.

Read on in `reading` (the format), `batches` (slices as arrays), `preparing` (the tables), `catalogue` and `files`
(writing so that nobody sees half a file, which all modules use).
"""

from sasrec_utils.mpd.catalogue import Catalogue
from sasrec_utils.mpd.preparing import CSV_NAME, TABLES, prepare
from sasrec_utils.mpd.reading import MPDError, Slice, has_slices, read_slice, slice_files

__all__ = ["CSV_NAME", "TABLES", "Catalogue", "MPDError", "Slice", "has_slices", "prepare", "read_slice", "slice_files"]
