"""All benchmarks by one command: `python Testing/benchmarks/run.py [commands warm prompt peers scaling batch]`.

Prints a Markdown table and writes it with a JSON file to `--out`. Medians of five runs unless a row says otherwise;
everything is measured on scans that the simulation makes on the spot. Measure on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import math
import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

MODULES = {
    "commands": "command_times",
    "warm": "warm_analysis",
    "prompt": "prompt_latency",
    "peers": "peers",
    "scaling": "scaling",
    "batch": "batch_throughput",
}


def main(argv: list[str] | None = None) -> int:
    """Command line; 0 where every limit is kept, 1 where one is not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MODULES)}; all where none is given")
    parser.add_argument("--out", type=Path, default=Path("benchmarks"), help="folder for scans, table and JSON")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cases", type=int, default=40, help="of the batch")
    args = parser.parse_args(argv)
    unknown = sorted(set(args.names) - set(MODULES))
    if unknown:
        parser.error(f"unknown {', '.join(unknown)}; choose of {', '.join(MODULES)}")
    from Testing.benchmarks.bench_settings import Bench
    from Testing.benchmarks.report_table import machine, markdown, write

    args.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(args.out.resolve(), args.runs, args.threads, batch_cases=args.cases)
    facts, rows = machine(), []
    for name, module in MODULES.items():
        if args.names and name not in args.names:
            continue
        for row in import_module(f"Testing.benchmarks.{module}").rows(bench):
            rows.append(row)
            print(f"{row.benchmark}: {row.name}: {row.value:.4g} {row.unit}", file=sys.stderr, flush=True)
        files = write(rows, facts, args.out)  # after each benchmark, so that a stopped run leaves what it has
    print(markdown(rows))
    print(f"\n{files[0]} and {files[1]}")
    return int(any(row.met is False and not math.isnan(row.value) for row in rows))


if __name__ == "__main__":
    sys.exit(main())
