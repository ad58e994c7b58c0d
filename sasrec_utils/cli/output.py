"""What the commands print: JSON that every reader takes, and tables that fit into a terminal."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import pandas as pd

from sasrec_utils.evaluation import Interval, Report, compare

__all__ = ["METRICS", "print_json", "print_reports", "records", "say", "short"]

METRICS = ("recall@10", "ndcg@10", "recall@10_all")
BLEND = "SASRec + item-kNN + Markov"
SECOND = "two stages"


def say(text: str) -> None:
    """A remark or progress: to stderr, so that results stay alone on stdout."""
    print(text, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """Print a value as JSON. What is no number (NaN, infinity) is null: JSON has no word for it."""
    print(json.dumps(_with_nulls(value), indent=1, allow_nan=False))


def records(table: pd.DataFrame) -> list[dict]:
    """The rows of a table as JSON takes them, missing values as null."""
    return json.loads(table.to_json(orient="records"))


def _with_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_nulls(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_with_nulls(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def short(interval: Interval, sign: bool = False) -> str:
    """A mean with its interval in 17 letters: ".372 [.347, .396]"; with `sign`, "+.115 [+.091, +.138]"."""
    mean, low, high = (_number(value, sign) for value in interval)
    return f"{mean} [{low}, {high}]"


def _number(value: float, sign: bool) -> str:
    if math.isnan(value):
        return "-"
    text = f"{value:+.3f}" if sign else f"{value:.3f}"
    return text.replace("0.", ".", 1) if abs(value) < 0.9995 else text


def print_reports(reports: list[Report]) -> None:
    """The metrics of the test playlists with their share of the best possible, and SASRec against each baseline."""
    by_name = {report.name: report for report in reports}
    model, oracle = by_name["sasrec"], by_name.get("oracle")
    share = f"{model.targets_kept:.1%} of their targets kept"
    print(f"{model.playlists:,} test playlists, {share}, protocol: {model.protocol}")
    print("(mean and 95 % interval over playlists, exact for recall; recall_all counts lost targets as misses)")
    if oracle is not None:
        print("(share: of what the best possible prediction reaches)")
    print(f"\n{_table(reports, oracle).to_string(index=False)}\n")
    pairs = [(model, other) for other in reports if other.name not in ("sasrec", "oracle", BLEND, SECOND)]
    if SECOND in by_name:
        pairs.append((by_name[SECOND], by_name[BLEND]))
    for one, other in pairs:
        gaps = ", ".join(f"{m} {short(compare(one, other, m), sign=True)}" for m in METRICS[:2])
        print(f"{'SASRec' if one is model else one.name} against {other.name}: {gaps}")


def _table(reports: list[Report], oracle: Report | None) -> pd.DataFrame:
    """At most 100 letters wide: 26 for the name, 17 for each interval, 5 for each share."""
    columns: dict[str, list[str]] = {"model": [report.name for report in reports]}
    for metric in METRICS:
        columns[metric.replace("@10_all", "_all")] = [short(report.metrics[metric]) for report in reports]
        if oracle is not None and not metric.endswith("_all"):
            best = oracle.metrics[metric].mean
            shares = [f"{report.metrics[metric].mean / best:.0%}" if best > 0 else "" for report in reports]
            columns[f"share of {metric}"] = shares
    table = pd.DataFrame(columns)
    return table.rename(columns={name: "share" for name in columns if name.startswith("share")})
