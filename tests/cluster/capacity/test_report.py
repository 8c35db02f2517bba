"""The report of the benchmark, from times that say nothing of a machine."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.capacity.fleets import made_up_times


@pytest.mark.slow
def test_report_is_written_with_its_pictures_and_drawn_again(tmp_path: Path):
    times = tmp_path / "times.json"
    times.write_text(made_up_times().model_dump_json())
    command = [sys.executable, "-m", "benchmarks.simulation", "--out", str(tmp_path / "report")]
    for more in (["--times", str(times), "--requests", "2000"], ["--redraw"]):
        done = subprocess.run([*command, *more], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        report = (tmp_path / "report" / "simulation.md").read_text()
        pictures = re.findall(r"!\[.+?\]\((.+?)\)", report)
        assert len(pictures) == 5
        for picture in pictures:
            assert (tmp_path / "report" / picture).read_bytes().startswith(b"\x89PNG")
        assert "{{" not in report
        # A table of every experiment has all its rows, each on a line of its own.
        assert len(re.findall(r"^\| \d+ \| ", report, re.MULTILINE)) == 8 + 7
    results = json.loads((tmp_path / "report" / "simulation" / "results.json").read_text())
    rows = [row for experiment in results["experiments"].values() for row in experiment]
    assert all(row["failed_requests"] == 0 for row in rows if "timeline" not in row)
