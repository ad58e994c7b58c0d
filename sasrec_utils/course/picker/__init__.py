"""The playlist picker: choose a playlist or bring your own, see what comes next and why, change it, or guess along.

Three parts: `desk` knows what is on the table and computes every answer, without any widget; `widget` shows it in a
notebook and hands the reader's clicks on; `picker.js` and `picker.css` draw it. Taught in notebook 07.
"""

from sasrec_utils.course.picker.widget import PlaylistPicker

__all__ = ["PlaylistPicker"]
