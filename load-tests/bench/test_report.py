"""What is made of reports; `python3 -m unittest discover -s bench -t .` in load-tests runs it."""

import tempfile
import unittest
from pathlib import Path
from typing import Any

from bench import goals, report, scenarios
from bench.runs import Report

FACTS = {
    "command": "load-tests/run a", "commit": "0123456789", "date": "2026-01-31", "gateway": "livegate 0.1.0",
    "rounds": 3, "duration": 4, "warmup": 1, "machine": "2 cores", "limits": "20000 open files", "compiler": "rustc 1",
}  # fmt: skip


def run_of(server: str, cost: float, busy: float = 80.0) -> Report:
    """A run of scenario a."""
    numbers = {"server_cpu_ms_per_1k_msgs": cost, "msgs_per_s": 1000, "loadgen_cpu_pct": busy}
    return {"label": "a", "server": server, "round": 1, **numbers}


def section_of(*reports: Report) -> report.Section:
    """Scenario a, of these runs."""
    return {"facts": FACTS, "versions": {}, "notes": {}, "failures": [], "reports": list(reports)}


class Tables(unittest.TestCase):
    """Reports become tables."""

    def test_rounds_become_a_median_a_range_and_a_ratio(self) -> None:
        """The floor stands first, and divides the others."""
        costs = (("livegate", 20), ("raw", 10), ("livegate", 18), ("raw", 12), ("livegate", 22))
        rows = report.section("a", section_of(*(run_of(*cost) for cost in costs))).splitlines()
        self.assertIn("| raw | 11 | 10–12 | 1.00 | 1,000 | 80 % | – |  |", rows)
        self.assertIn("| livegate | 20 | 18–22 | 1.82 | 1,000 | 80 % | – |  |", rows)

    def test_a_generator_at_its_limit_is_marked(self) -> None:
        """And what then counts is said below."""
        text = report.section("a", section_of(run_of("raw", 10, busy=99)))
        self.assertIn("| 99 % * |", text)
        self.assertIn("The generator was the limit", text)
        self.assertNotIn("The generator was the limit", report.section("a", section_of(run_of("raw", 10))))

    def test_goals_are_measured_beside_the_floor(self) -> None:
        """In the same scenario."""
        text = report.goals({"a": section_of(run_of("raw", 10), run_of("livegate", 15))})
        self.assertIn(
            "| a. Message to a backend and back, CPU | ÷ raw | ≤ 1.6 | ≤ 1.35 | ≤ 0.99 | 1.50 | reached |", text
        )

    def test_every_label_has_a_scenario(self) -> None:
        """Or its runs would be in no section."""
        labels = [figure.label for figure in scenarios.FIGURES] + [goal.label for goal in goals.GOALS]
        self.assertEqual([label for label in labels if report.scenario_of(label) not in scenarios.SCENARIOS], [])

    def test_results_are_read_as_they_were_written(self) -> None:
        """One report a line."""
        results = {"a": section_of(run_of("raw", 10), run_of("livegate", 15))}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "results.json"
            report.write_results(path, results)
            self.assertEqual(report.read_results(path), results)
        self.assertIn("# Results", report.document(results, ["cpu"]))


class Mishaps(unittest.TestCase):
    """What went wrong is named."""

    def check(self, found: dict[str, Any], expected: list[str]) -> None:
        """Of a run of `soak/livegate`."""
        self.assertEqual(report.mishaps({"label": "soak", "server": "livegate", **found}), expected)

    def test_what_went_wrong_is_named(self) -> None:
        """Whatever the run was."""
        self.check({"failed": 0, "lost": 0, "errors": 0}, [])
        self.check({"lost": 3}, ["soak/livegate: 3 lost"])
        slow = {"rate_asked": 10_000, "deliveries_per_s": 9_000}
        self.check(slow, ["soak/livegate: 9000 pushes/s of the 10000 asked for"])
        self.check({"rate_asked": 0, "deliveries_per_s": 9_000}, [])
        silent = {"held": 18_000, "held_echoed": 17_999}
        self.check(silent, ["soak/livegate: 17999 of 18000 answered at the end"])


class Goals(unittest.TestCase):
    """How far a figure got."""

    def test_the_best_bound_counts(self) -> None:
        """Down, or up where more is better."""
        down = goals.Goal("", "a", "", "raw", 1.6, 1.35, 1.0)
        self.assertEqual([down.verdict(x) for x in (2, 1.6, 1.35, 1)], ["MISSED", "reached", "strong", "moonshot"])
        up = goals.Goal("", "a", "", "", 10, 20, more_is_better=True)
        self.assertEqual([up.verdict(x) for x in (9, 10, 20)], ["MISSED", "reached", "strong"])


if __name__ == "__main__":
    unittest.main()
