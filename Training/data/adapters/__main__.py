"""`python -m Training.data.adapters NAME ROOT --out manifest.csv`: write and check the manifest of a data set."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from ICHAnalysisLib.errors import ICHAnalysisError, UsageError
from Training.data.adapters import REGISTRY, Options, load_adapter
from Training.data.manifest import read_manifest, write_manifest


def main(argv: list[str] | None = None) -> int:
    """Command line; 0 done, 2 wrong use or a tree that is not the data set's."""
    parser = argparse.ArgumentParser(prog="python -m Training.data.adapters", description=__doc__)
    parser.add_argument("name", choices=sorted(REGISTRY))
    parser.add_argument("root", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="the manifest to write")
    parser.add_argument("--images", type=Path, help="hemseg: folder of the rebuilt scans")
    parser.add_argument("--reads", type=Path, help="cq500, seg-cq500: reads.csv")
    parser.add_argument("--boxes", type=Path, help="cq500: folder of the BHX tables")
    parser.add_argument("--table", type=Path, help="hospital: CSV or XLSX, one row a scan")
    parser.add_argument("--columns", type=Path, help="hospital: JSON that maps the table's columns")
    parser.add_argument("--secret", default="", help="hospital: key of the patients' pseudonyms")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    fields = {key: value for key, value in vars(args).items() if key not in ("name", "root")}
    try:
        if not args.root.is_dir():
            raise UsageError(f"{args.root} is no folder.")
        rows = list(load_adapter(args.name)(args.root, Options(**fields)))
        if not rows:
            raise UsageError(f"{args.root}: no case of {args.name} found; is this the data set's own folder?")
        write_manifest(args.out, rows)
        read_manifest(args.out)
    except ICHAnalysisError as error:
        print(error, file=sys.stderr)
        return 2
    patients = len({row.patient_id for row in rows})
    print(f"{args.out}: {len(rows)} rows, {len({row.scan_case_id for row in rows})} scans, {patients} patients")
    return 0


if __name__ == "__main__":
    sys.exit(main())
