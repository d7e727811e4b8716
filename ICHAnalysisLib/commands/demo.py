"""`ich-analysis demo`: makes a simulated scan, analyzes it like any other, and compares with its truth."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from ICHAnalysisLib.commands.analyze import add_run_arguments, options_from, print_progress
from ICHAnalysisLib.commands.output_arguments import add_output_arguments, output_options

#: The demo scan: a deep hemorrhage on the left that broke into the ventricles and pushes the midline to the right.
DEMO_SEED = 18


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("--out", default="ich-demo", help="folder for the scan and the results (default ich-demo)")
    parser.add_argument("--seed", type=int, default=DEMO_SEED, help="another seed makes another head and hemorrhage")
    add_run_arguments(parser)
    add_output_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Simulate, analyze, write, and print the summary with the agreement to the truth."""
    from ICHAnalysisLib.analyze import analyze_scan
    from ICHAnalysisLib.clinical import ClinicalRecord
    from ICHAnalysisLib.outputs.summary import summary_lines

    start = time.perf_counter()
    outputs = output_options(args)
    out = Path(args.out)
    print_progress(0.0, "Making a simulated head CT")
    case = demo_case(args.seed)
    scan = write_demo_scan(case, out / "scan")
    clinical = ClinicalRecord.from_dict(
        {key: case.record[key] for key in ("age", "sex", "gcs") if case.record.get(key) is not None}
    )
    analysis, files = analyze_scan(
        scan, out, clinical=clinical, options=options_from(args), outputs=outputs, progress=print_progress
    )
    print("\n".join(summary_lines(analysis, files)))
    print(agreement_line(case, analysis, files))
    print(
        f"Took {time.perf_counter() - start:.0f} s. The scan is simulated; so is everything the networks learned from."
    )
    if analysis.status != "ok":
        print(f"Blocked: {analysis.message}", file=sys.stderr)
        return 3
    return 0


def demo_case(seed: int = DEMO_SEED):
    """The simulated case of the demo and of Slicer's sample data: 512 x 512, 5 mm, one deep hemorrhage."""
    from ICHAnalysisLib.simulate.acquisition import AcquisitionSpec
    from ICHAnalysisLib.simulate.cohort import CaseSpec, simulate_case

    acquisition = AcquisitionSpec(
        matrix=512, spacing_mm=0.45, thickness_mm=5.0, gap_mm=0.0, uneven=False, tilt_degrees=0.0, storage="full"
    )
    return simulate_case(seed, CaseSpec(has_ich=True, location="deep", volume_ml=24.0, acquisition=acquisition))


def write_demo_scan(case, folder: Path) -> Path:
    """Write the case as DICOM and NIfTI beside its truth; returns the DICOM folder."""
    from ICHAnalysisLib.simulate.writing import write_case

    write_case(case, folder / "nifti", "nifti")
    write_case(case, folder / "dicom", "dicom")
    return folder / "dicom"


def agreement_line(case, analysis, files) -> str:
    """Dice and volume of the written segmentation against the simulation's truth."""
    import numpy as np

    from ICHAnalysisLib.ct.images import load_spatial

    found = np.asarray(load_spatial(files["segmentation"]).dataobj).transpose(2, 1, 0) == 1
    truth = case.labels == 1
    if found.shape != truth.shape:
        return f"Truth: {case.truth['volume_ml']:.1f} mL; the segmentation has other slices, so no overlap is given."
    overlap = 2 * np.count_nonzero(found & truth) / max(np.count_nonzero(found) + np.count_nonzero(truth), 1)
    volume = analysis.volumes_ml.get("segmentation") or 0.0
    return (
        f"Truth: {case.truth['volume_ml']:.1f} mL, {case.truth['side']} {case.truth['location']}; "
        f"segmentation {volume:.1f} mL, Dice {overlap:.2f}."
    )
