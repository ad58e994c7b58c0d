"""What the page shows of a desk: plain dictionaries of text and numbers, nothing that needs escaping more than once."""

from __future__ import annotations

import itertools

import numpy as np

from sasrec_utils.course.picker.desk import Desk
from sasrec_utils.course.picker.wording import count, share, unit
from sasrec_utils.model import SASRec
from sasrec_utils.track_names import plain


def view(desk: Desk) -> dict:
    """All that the page shows except the reasons."""
    changed = desk.changed
    hint = ""
    if not desk.ids:
        hint = "Your playlist is empty. Add a track below, or take one of these with +."
    hidden = desk.round is not None and not desk.round.over
    return {
        "title": desk.title,
        "changed": changed,
        "count": count(len(desk.ids), "track"),
        "unseen": f"the models see the newest {desk.seen}" if desk.seen < len(desk.ids) else "",
        "hint": hint,
        "playlist": [names_of(desk, i) | {"added": a} for i, a in zip(desk.ids, desk.added, strict=True)],
        "answers": [] if hidden else [_answer(desk, name) for name in desk.answers],
        "truth": "" if hidden else _truth(desk),
        "status": desk.status,
        "can": {
            "undo": changed,
            "restart": changed and desk.begun,
            "empty": bool(desk.ids),
            "guess": desk.can_guess,
            "save": bool(desk.ids),
        },
        "models": list(desk.recommenders),
        "model": desk.model,
        "beside": desk.beside,
        "settings": vars(desk.settings),
        "draws": _draws(desk),
        "read": _read(desk),
        "round": _round(desk),
        "took": f"{desk.took:.0f} ms",
        "file": "".join(c if c.isalnum() or c in " -_" else "_" for c in desk.title).strip()[:60] or "playlist",
    }


def names_of(desk: Desk, track: int) -> dict:
    """A track as the page knows it: its model id, and its names as plain text."""
    parts = {key: plain(desk.tracks.columns[f"{key}_name"][track - 1]) for key in ("track", "artist", "album")}
    return {"id": track, **parts, "track": parts["track"] or "(untitled)"}


def _answer(desk: Desk, name: str) -> dict:
    answer, recommender = desk.answers[name], desk.recommenders[name]
    strengths, what = desk.strengths(name), unit(recommender)
    rows = list(zip(answer.table["rank"].tolist(), answer.table["track_id"].tolist(), strict=True))
    rank = answer.rank(desk.next_id) if desk.next_id else 0
    if rank > len(rows):
        rows.append((rank, desk.next_id))
    # Probabilities of two models are drawn on one scale; what is no probability has its own.
    tops = [
        desk.strengths(m)[desk.answers[m].table["track_id"]] for m in desk.answers if unit(desk.recommenders[m]) == what
    ]
    top = max([float(t.max()) for t in tops if len(t)], default=0.0)
    # Without a history there is only the order of plays, and a score of unknown scale says nothing to a reader.
    silent = what == "score" or (not answer.history and what != "plays")
    shown = []
    for place, i in rows:
        value = float(strengths[i])
        number = "" if silent else _number(value, what)
        bar = 0.0 if silent or top <= 0 else float(np.clip(value / top, 0, 1))
        shown.append(names_of(desk, i) | {"rank": place, "number": number, "bar": bar, "next": i == desk.next_id})
    return {"model": name, "unit": "" if silent else what, "note": answer.note, "rows": shown}


def _number(value: float, what: str) -> str:
    if what == "probability":
        return share(value)
    return f"{value:.3f}" if what == "similarity" else f"{value:,.0f}"


def _truth(desk: Desk) -> str:
    """Where the real next track stands, in one sentence."""
    if not desk.next_id:
        return ""
    label = desk.label(desk.next_id)
    if desk.next_id in desk.ids:
        return f"Really next: {label}. The playlist has it already, so it is no candidate."
    if desk.next_id > len(desk.recommenders[desk.model]):
        return f"Really next: {label}. No training playlist had it, so no model can name it."
    ranks = ", ".join(f"{answer.rank(desk.next_id):,} for {name}" for name, answer in desk.answers.items())
    return f"★ Really next: {label}; rank {ranks}."


def _draws(desk: Desk) -> list[list[str]]:
    """What the bars behind the playlist can show: [value, label] pairs."""
    scorer = desk.recommenders[desk.model].scorer
    draws = [["removals", "what removing each track does"]]
    if isinstance(scorer, SASRec):
        draws.append(["attention", "attention, mean of all heads"])
        for b, h in itertools.product(range(scorer.config.blocks), range(scorer.config.heads)):
            draws.append([f"attention {b + 1}.{h + 1}", f"attention, block {b + 1}, head {h + 1}"])
    return draws


def _read(desk: Desk) -> dict | None:
    if desk.read is None:
        return None
    missing = []
    for one in desk.read.missing:
        meant = [names_of(desk, i) for i in one.suggestions]
        missing.append({"text": plain(one.entry.text)[:120], "reason": one.reason, "meant": meant})
    said = f"{len(desk.read.ids):,} of {count(len(desk.read.entries), 'track')} recognised"
    return {"said": said, "missing": missing}


def _round(desk: Desk) -> dict | None:
    """A round as it may be seen: before the reader has chosen, nothing gives the answer away."""
    if desk.round is None:
        return None
    one = desk.round
    choices = [names_of(desk, i) | {"picked": [], "next": False} for i in one.choices]
    if one.over:
        for choice in choices:
            choice["picked"] = [name for name, pick in one.picks.items() if pick == choice["id"]]
            choice["next"] = choice["id"] == one.answer
    score = [f"{name} {right}" for name, right in desk.score.items()]
    told = f"After {count(desk.rounds, 'round')}: {', '.join(score)}." if desk.rounds else ""
    return {"choices": choices, "over": one.over, "score": told}
