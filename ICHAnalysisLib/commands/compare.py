"""`ich-analysis compare`: agreement of raters and methods from a CSV of volumes, or of label maps in pairs."""

from __future__ import annotations

import argparse
from pathlib import Path

from ICHAnalysisLib.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument(
        "volumes", nargs="?", help="CSV with case_id and one column of mL a rater or method (or use --model)"
    )
    parser.add_argument("--model", help="label map, or folder of label maps")
    parser.add_argument(
        "--reference", help="label map or folder to compare --model with; with a CSV, the name of its reference column"
    )
    parser.add_argument("--out", default="ich-comparison", help="folder for the results (default: ich-comparison)")


def run(args: argparse.Namespace) -> int:
    """Compare, write the files, print table 1; 2 on wrong use."""
    from ICHAnalysisLib.compare import (
        compare_masks,
        compare_methods,
        find_reference,
        masks_as_table,
        pair_masks,
        read_volume_table,
    )
    from ICHAnalysisLib.outputs.comparison import markdown_table, write_comparison

    if (args.volumes is None) == (args.model is None):
        raise UsageError("Give either a CSV of volumes, or --model and --reference label maps.")
    pairs = []
    if args.model is not None:
        if args.reference is None:
            raise UsageError("--model needs --reference: the label map, or the folder, to compare it with.")
        pairs = [compare_masks(*pair) for pair in pair_masks(args.model, args.reference)]
        table, reference = masks_as_table(pairs), "reference"
    else:
        table = read_volume_table(args.volumes)
        reference = find_reference(table, args.reference)
    agreements = compare_methods(table, reference)
    files = write_comparison(table, reference, agreements, Path(args.out), pairs)
    print(markdown_table(agreements, reference), end="")
    for pair in pairs[:20]:
        print(f"{pair.case_id}: Dice {pair.overlap.dice:.3f}, HD95 {pair.overlap.hd95_max:.1f} mm")
    count = len(table.case_ids)
    print(f"{count} case{'s' if count != 1 else ''}; files in {files['json'].parent}")
    return 0
