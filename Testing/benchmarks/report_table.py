"""The benchmark's rows as a Markdown table and as JSON."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """One measured number. limit: what it must not exceed, or reach where `at_least`; None where nothing is asked."""

    benchmark: str
    name: str
    value: float
    unit: str = "s"
    runs: int = 1
    limit: float | None = None
    at_least: bool = False
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the limit is kept; None without one."""
        if self.limit is None:
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def markdown(rows: list[Row]) -> str:
    """A table, one line a row."""
    lines = ["| benchmark | what | median | asked for | runs | note |", "|---|---|---|---|---|---|"]
    for row in rows:
        asked = ""
        if row.limit is not None:
            sign = "at least" if row.at_least else "at most"
            asked = f"{sign} {_number(row.limit)} {row.unit}: {'yes' if row.met else '**no**'}".replace("  ", " ")
        lines.append(
            f"| {row.benchmark} | {row.name} | {_number(row.value)} {row.unit} | {asked} | {row.runs} | {row.note} |"
        )
    return "\n".join(lines)


def _number(value: float) -> str:
    """Three digits that count."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def machine() -> dict[str, Any]:
    """What the numbers were measured on, without the machine's name."""
    import torch

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def _processor() -> str:
    """Name of the processor's family."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def write(rows: list[Row], facts: dict[str, Any], folder: Path) -> tuple[Path, Path]:
    """benchmarks.md and benchmarks.json in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    table, data = folder / "benchmarks.md", folder / "benchmarks.json"
    table.write_text(markdown(rows) + "\n", encoding="utf-8")
    items = [{**asdict(row), "met": row.met} for row in rows]
    data.write_text(json.dumps({"machine": facts, "rows": items}, indent=1) + "\n", encoding="utf-8")
    return table, data
