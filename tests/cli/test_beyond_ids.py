"""What the command line knows beside ids: a table of features, and titles."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest
from command_line import SMALL, refused, sasrec


@pytest.fixture(scope="module")
def side(made, tmp_path_factory):
    """A second model in the same data directory, trained with features and titles; some tracks have never been played
    in training, since `--min-count` is high."""
    data = tmp_path_factory.mktemp("side") / "data"
    shutil.copytree(made[0], data)
    table = data / "raw" / "features.csv"
    options = ("--data-dir", data, "--name", "side", "--features", table, "--titles", "--min-count", 8, *SMALL)
    outcome = sasrec("run", *options, "--no-rerank", "--json")
    assert outcome.code == 0, outcome.err
    return data, outcome, options


def test_a_model_with_features_and_titles_is_judged_on_every_target(side):
    data, outcome, options = side
    assert json.loads(outcome.out)["targets_kept"] == 1
    again = sasrec("train", *options)
    assert again.code == 0 and "not trained again" in again.err
    judged = sasrec("evaluate", "--data-dir", data, "--name", "side", "--no-rerank", "--json")
    rows = {row["model"]: row for row in json.loads(judged.out)}
    assert rows["sasrec"]["targets_kept"] == 1


def test_other_features_are_another_model(side):
    data, _, options = side
    table = pd.read_csv(data / "raw" / "features.csv", dtype=str)
    table.drop(columns="energy").to_csv(data / "fewer.csv", index=False)
    other = [data / "fewer.csv" if option == data / "raw" / "features.csv" else option for option in options]
    refused(sasrec("train", *other), "--again")


def test_a_title_alone_is_answered(side):
    data, _, _ = side
    where = ("--data-dir", data, "--name", "side", "-k", 3)
    outcome = sasrec("recommend", "--title", "rainy sunday", *where, "--json")
    answer = json.loads(outcome.out)
    assert outcome.code == 0 and len(answer["recommendations"]) == 3 and "title alone" in answer["note"]
    known = answer["recommendations"][0]["track_uri"]
    both = json.loads(sasrec("recommend", known, "--title", "rainy sunday", *where, "--json").out)
    assert both["recognised"] == 1 and known not in {row["track_uri"] for row in both["recommendations"]}
    assert sasrec("recommend", "never heard of", "--title", "rain", *where).code == 1
    refused(sasrec("recommend", *where), "name at least one track")


def test_a_model_without_titles_says_so(made):
    refused(sasrec("recommend", "--title", "rain", "--data-dir", made[0]), "does not read titles")


def test_a_table_that_cannot_be_used_is_named(side, tmp_path):
    data, _, _ = side
    (tmp_path / "empty.csv").write_text("track_uri,genre\n")
    for name, word in (("empty.csv", "has no rows"), ("none.csv", "there is no such file")):
        given = ("--features", tmp_path / name, "--name", "other", "--data-dir", data)
        refused(sasrec("train", *given, *SMALL), word)
    assert not (data / "models" / "other").exists()
