"""The benchmark of growth at a tiny size, by real processes; its drawing by hand."""

import json
import sys
from xml.etree import ElementTree as ET

import scale
from scale_report import Curve, _panel


def test_trains_and_writes_tables_and_raw_numbers(tmp_path, monkeypatch, capsys) -> None:
    sizes = ["--rows", "400", "--items", "--events", "--ranks", "--exported", "--base", "800", "300", "4000"]
    paths = ["--work", tmp_path / "work", "--out", tmp_path / "out", "--curves", tmp_path / "curves.svg"]
    monkeypatch.setattr(sys, "argv", ["scale.py", *sizes, "--steps", "25", "--rounds", "1", *map(str, paths)])
    scale.main()
    (raw,) = (tmp_path / "out").glob("scale-*.json")
    results = json.loads(raw.read_text())
    (run,) = results["train"]
    assert (run["varied"], run["rows"], run["items"], run["events"], run["ranks"]) == ("rows", 400, 300, 4000, 1)
    assert len(run["step_s"]) == 3  # windows that end at steps 15, 20 and 25, after the first 12
    # 4 tables with 101 to 109 rows and 8 spare, 16 wide, of ids; and those of brands, categories and the encoder
    assert 4 * 16 * 4 * 109 < run["weights_bytes"] < run["checkpoint_bytes"]
    assert min(run["start_bytes"], run["steps_bytes"], run["end_bytes"]) > 50 * 2**20  # PyTorch alone is more
    assert [(one["items"], one["events"]) for one in results["prepare"]] == [(300, 4000)]
    assert "| rows | 400 | 300 | 4,000 | 1 x 1 |" in capsys.readouterr().out
    assert "| rows | 400 |" in raw.with_suffix(".md").read_text()
    assert not list((tmp_path / "work").glob("run*"))  # runs are large
    ET.parse(tmp_path / "curves.svg")


def test_scattered_ids_are_distinct_and_positive() -> None:
    ids = scale.scattered(scale.np.arange(100_000))
    assert len(set(ids.tolist())) == 100_000
    assert ids[0] == 0
    assert ids[1] == 0x9E3779B97F4A7C15 >> 3
    assert ids.min() >= 0


def test_points_are_placed_by_their_logarithms() -> None:
    panel = ET.fromstring(f"<g>{_panel(Curve('s', 'n', [(10.0, 1.0), (100.0, 10.0)]), 50, 20)}</g>")
    # a panel of 250 x 170: one decade across and up, so the points are its corners
    assert panel.find("polyline").get("points") == "50.0,190.0 300.0,20.0"
    assert [mark.text for mark in panel.findall("text")] == ["s, by n", "1.0", "10", "1e1", "1e2", "1e0", "1e1"]
