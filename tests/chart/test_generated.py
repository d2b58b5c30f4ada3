"""What is generated of the chart is up to date: copies of the CRDs, dashboards, the README's table of values."""

import subprocess
import sys

from tests.chart.kube import REPOSITORY


def test_the_generated_parts_of_the_chart_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "charts.generate", "--check"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
