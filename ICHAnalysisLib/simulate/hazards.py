"""All hazards of a head CT, each made from a known scan, read back and measured against the truth.

`python -m ICHAnalysisLib.simulate.hazards --table OUT.md --network` writes the table of docs/hazards.md.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ICHAnalysisLib.ct.images import read_image
from ICHAnalysisLib.ct.lesion_checks import lesion_findings, settle_gaps
from ICHAnalysisLib.ct.masks import match_mask
from ICHAnalysisLib.ct.readers import inspect_headers, inspect_scan
from ICHAnalysisLib.ct.study import open_study
from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.errors import InputBlockedError
from ICHAnalysisLib.findings import Finding, Level
from ICHAnalysisLib.simulate import hazard_compression as compression
from ICHAnalysisLib.simulate import hazard_images as images
from ICHAnalysisLib.simulate import hazard_scans as scans
from ICHAnalysisLib.simulate import hazard_tissue as tissue
from ICHAnalysisLib.simulate.hazard_network import Outline, outlined_ml, remembered, shipped_weights, simulated_bench
from ICHAnalysisLib.simulate.hazard_scans import Bench, MadeScan
from ICHAnalysisLib.simulate.rescan import centroid_ras, phantom

INTRODUCTION = (
    "# Hazards of a head CT",
    "",
    "Every scan is checked before it is measured. BLOCK: no numbers are given. ASK: the user confirms (`--yes`, or the",
    "answer at a terminal), a batch skips the scan with the reason. FIX: mended, and said. NOTE: said.",
    "`ich-analysis info SCAN` lists what the headers tell, `--pixels` adds what the voxels tell; analysis.json and the",
    "report carry the same findings.",
    "",
    "Written by `python -m ICHAnalysisLib.simulate.hazards --table OUT.md --network`. A head with one bleed of known",
    "volume (an ellipsoid) is scanned anew for every row, damaged as the row says, read back with every question",
    "accepted, and the truth's mask is measured on what was read. *error* is measured minus true volume; *ITK error*",
    "is the same mask measured with the spacing that SimpleITK reads from the same files, where it differs; *offset*",
    "is the distance of the mask's center from the true one. One or two gaps between slices are a question only where",
    "blood lies next to them or none is found.",
)
BLOCK, ASK, FIX, NOTE = Level.BLOCK, Level.ASK, Level.FIX, Level.NOTE


@dataclass(frozen=True)
class Hazard:
    """One way to make hazard `number`: what was made, and the finding it must give ("" for none at all).

    lower_bound: the measured volume may fall short of the truth, never exceed it. headers: no pixels are read.
    """

    number: int
    made: str
    make: Callable[[Bench, Path], MadeScan]
    code: str
    level: Level | None
    lower_bound: bool = False
    headers: bool = False


HAZARDS: tuple[Hazard, ...] = (
    Hazard(1, "gantry tilted by 20 degrees", scans.tilt, "gantry_tilt", FIX),
    Hazard(1, "gantry tilted by 33 degrees", scans.steep_tilt, "gantry_tilt_steep", ASK),
    Hazard(2, "NIfTI with a sheared matrix", images.sheared, "sheared", FIX),
    Hazard(2, "NRRD with a sheared matrix", images.sheared_nrrd, "sheared", FIX),
    Hazard(2, "rows pushed aside by 12 degrees in plane (NIfTI)", images.sheared_in_plane, "sheared", FIX),
    Hazard(3, "one slice through the bleed missing", scans.missing_slice, "missing_slices", ASK, lower_bound=True),
    Hazard(3, "two slices away from the bleed missing", scans.missing_elsewhere, "missing_slices", NOTE),
    Hazard(4, "two slices there twice", scans.copied_slices, "duplicate_slices", FIX),
    Hazard(4, "two acquisitions in one series", scans.two_phases, "several_phases", ASK),
    Hazard(5, "5 mm slices below, 10 mm above", scans.five_and_ten, "uneven_spacing", FIX),
    Hazard(6, "6 mm slices every 3 mm", scans.overlapping, "slice_overlap", NOTE),
    Hazard(6, "5 mm slices every 7 mm", scans.gaps, "slice_gaps", NOTE),
    Hazard(7, "a localizer beside the scan", scans.with_localizer, "localizer", FIX),
    Hazard(8, "localizer, soft, bone, thin and contrast series", scans.whole_study, "several_series", NOTE),
    Hazard(9, "kernel H70h", scans.bone_kernel, "bone_kernel", ASK),
    Hazard(9, "noise of a sharp kernel, header silent", tissue.noisy, "bone_kernel", ASK),
    Hazard(10, "1 mm slices", scans.thin, "thin_slices", FIX),
    Hazard(11, "no rescale slope and intercept", scans.no_rescale, "rescale_missing", ASK),
    Hazard(11, "rescale slope and intercept missing on one slice", scans.rescale_on_most, "rescale_missing", ASK),
    Hazard(11, "another intercept on every second slice", scans.mixed_rescale, "rescale_varies", FIX),
    Hazard(12, "ring of -3024 around the field of view", scans.padding, "padding", FIX),
    Hazard(13, "12-bit numbers that ran over", scans.wrapped, "wrapped_12_bit", FIX),
    Hazard(14, "negative numbers stored as unsigned", scans.unsigned, "signed_unsigned", ASK),
    Hazard(14, "all tissue 60 HU too dense", tissue.wrong_density, "brain_density", BLOCK),
    Hazard(15, "gray levels 0 to 255", images.gray_levels, "not_hu", BLOCK),
    Hazard(15, "values 0 to 1", images.unit_range, "not_hu", BLOCK),
    Hazard(15, "true HU cut to 0 to 80", images.clipped, "hu_window_clipped", NOTE),
    Hazard(15, "slope lost (0.8 of every HU)", images.lost_slope, "hu_scale", ASK),
    Hazard(16, "HU + 1024 (NIfTI)", images.shifted, "shifted_hu", FIX),
    Hazard(16, "HU + 1024 (DICOM, intercept 0)", scans.shifted, "shifted_hu", FIX),
    Hazard(17, "contrast agent in the header", scans.contrast_tag, "contrast", ASK),
    Hazard(17, "enhanced vessels, header silent", tissue.contrast_vessels, "contrast", ASK),
    Hazard(18, "virtual non-contrast images", scans.dual_energy, "dual_energy", ASK),
    Hazard(19, "MR series", scans.mr_series, "not_ct", BLOCK),
    Hazard(19, "MR as NIfTI", images.mr_image, "not_ct", BLOCK),
    Hazard(20, "PET-CT scanner", scans.pet_ct, "low_dose_ct", NOTE),
    Hazard(21, "patient of 6 years", scans.child, "pediatric", ASK),
    Hazard(21, "small skull, age unknown", tissue.small_head, "pediatric", ASK),
    Hazard(22, "metal inside the skull", tissue.metal, "metal", NOTE),
    Hazard(23, "craniectomy", tissue.craniectomy, "postoperative", NOTE),
    Hazard(24, "coronal slices", scans.coronal, "non_axial", FIX),
    Hazard(25, "rows and columns flipped, matrix right", images.flipped, "", None),
    Hazard(25, "slices along the first axis", images.other_axes, "axes_exchanged", FIX),
    Hazard(25, "NIfTI without directions", images.no_direction, "side_unknown", ASK),
    Hazard(25, "NIfTI with two orientations", images.two_orientations, "orientation_conflict", ASK),
    Hazard(25, "NIfTI with two voxel sizes", images.two_voxel_sizes, "voxel_size_conflict", ASK),
    Hazard(26, "three volumes in a NIfTI", images.time_series, "time_series", BLOCK),
    Hazard(26, "perfusion series of four time points", scans.perfusion, "time_series", BLOCK),
    Hazard(27, "JPEG 2000", compression.jpeg_2000, "", None),
    Hazard(27, "JPEG-LS", compression.jpeg_ls, "", None),
    Hazard(27, "lossless JPEG", compression.lossless_jpeg, "", None),
    Hazard(27, "RLE, once compressed with loss", compression.run_length, "lossy_compression", NOTE),
    Hazard(27, "a syntax without decoder", compression.no_decoder, "decoder_missing", BLOCK),
    Hazard(28, "enhanced multi-frame, uneven, reversed", scans.enhanced, "enhanced_multiframe", FIX),
    Hazard(29, "headers of 400 slices of 4096 x 4096", scans.gigantic, "huge", ASK, headers=True),
    Hazard(30, "a truncated and an empty file", scans.truncated, "damaged_files", ASK, lower_bound=True),
    Hazard(31, "50 voxels without a number", images.some_nan, "not_finite", FIX),
    Hazard(31, "a sixth of the voxels infinite", images.many_nan, "not_finite", BLOCK),
    Hazard(32, "nothing but air", tissue.emptied, "constant_image", BLOCK),
    Hazard(33, "scan cut through the bleed", scans.cut_short, "incomplete_cover", NOTE, lower_bound=True),
    Hazard(34, "a skull with air in it", tissue.no_brain, "not_a_head", BLOCK),
    Hazard(35, "mask on a 3 mm grid", images.mask_other_grid, "mask_grid", FIX),
    Hazard(35, "mask of another place", images.mask_elsewhere, "mask_grid", BLOCK),
    Hazard(36, "mask of 0 and 255", images.mask_255, "mask_values", FIX),
    Hazard(36, "mask with unknown classes", images.mask_classes, "mask_values", ASK),
    Hazard(37, "two patients in one folder", scans.two_patients, "several_patients", BLOCK),
    Hazard(38, "no pixel spacing", scans.no_pixel_spacing, "pixel_spacing_missing", BLOCK),
    Hazard(39, "names in tags, burnt-in text", scans.burnt_in, "identifiers", NOTE),
    Hazard(40, "blood of 40 HU", tissue.old_blood, "low_density_lesion", NOTE),
    Hazard(41, "dense pineal gland", tissue.calcium, "calcification", NOTE),
)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What reading a hazardous scan gave. measured_ml and itk_ml are NaN where nothing was measured."""

    hazard: Hazard
    findings: tuple[Finding, ...]
    volume: CTVolume | None
    mask: np.ndarray | None
    measured_ml: float
    truth_ml: float
    offset_mm: float
    itk_ml: float

    @property
    def finding(self) -> Finding | None:
        """The finding that the hazard must give, if it was given."""
        return next((f for f in self.findings if f.code == self.hazard.code and f.level is self.hazard.level), None)


def try_hazard(hazard: Hazard, bench: Bench, folder: Path) -> Outcome:
    """Make a hazard in `folder`, read it with every question accepted, and measure the truth's mask on it."""
    made = hazard.make(bench, folder)
    volume: CTVolume | None = None
    mask: np.ndarray | None = None
    try:
        volume = inspect_headers(open_study(made.path)) if hazard.headers else inspect_scan(made.path, made.series)
        findings = volume.findings
    except InputBlockedError as error:
        findings = error.findings
    if volume is not None and not hazard.headers:
        mask, said = carried_mask(volume, made)
        findings = (*settle_gaps(findings, volume, mask), *said, *lesion_findings(volume, mask))
    measured = offset = itk = np.nan
    if volume is not None and mask is not None and not any(finding.level is BLOCK for finding in findings):
        measured = volume.mask_volume_ml(mask)
        offset = float(np.linalg.norm(centroid_ras(volume, mask) - made.centroid_ras))
        itk = itk_volume_ml(made, mask)
    return Outcome(hazard, findings, volume, mask, measured, made.truth_ml, offset, itk)


def carried_mask(volume: CTVolume, made: MadeScan) -> tuple[np.ndarray, tuple[Finding, ...]]:
    """The truth's mask on the slices that were read, bool (K, J, I), and what was said about it."""
    if made.mask_path is not None:
        labels, findings = match_mask(read_image(made.mask_path), volume)
        return labels == 1, findings
    planes = []
    for ref in volume.instances:
        whole = made.masks.get(ref.sop_instance_uid)
        planes.append(whole if whole is not None else made.masks[f"{ref.sop_instance_uid}/{ref.frame}"])
    return np.stack(planes), ()


def itk_volume_ml(made: MadeScan, mask: np.ndarray) -> float:
    """The mask's volume by the spacing that ITK reads from the same files; NaN where ITK refuses them."""
    import SimpleITK as sitk  # noqa: N813

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        if made.path.is_dir():
            names = max(
                (
                    sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(made.path), one)
                    for one in sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(made.path))
                ),
                key=len,
            )
            image = sitk.ReadImage(names) if len(names) > 1 else sitk.ReadImage(names[0])
        else:
            image = sitk.ReadImage(str(made.path))
    except (RuntimeError, ValueError):
        return float("nan")
    return float(np.count_nonzero(mask) * np.prod(image.GetSpacing()[:3]) / 1000.0)


def table_lines(outcomes: list[Outcome], network: list[str] | None = None) -> list[str]:
    """The table of all outcomes as markdown. network: a last cell for each of them."""
    last = " network change mL |" if network else ""
    lines = [
        "| no. | made | said | level | truth mL | error mL | ITK error mL | offset mm |" + last,
        "|---|---|---|---|---|---|---|---|" + ("---|" if network else ""),
    ]
    for n, outcome in enumerate(outcomes):
        hazard, finding = outcome.hazard, outcome.finding
        same = [one.message for one in outcome.findings if finding and one.code == finding.code]
        said = f"`{finding.code}`: {' '.join(same)}" if finding else "nothing (read as it is)"
        level = finding.level.value if finding else "-"
        error, itk = (value - outcome.truth_ml for value in (outcome.measured_ml, outcome.itk_ml))
        differs = np.isfinite(itk) and abs(itk - error) > 0.005 * outcome.truth_ml
        shown = "no numbers" if np.isnan(error) else f"{error:+.2f}" + (" (lower bound)" if hazard.lower_bound else "")
        other = f"{itk:+.2f}" if differs else "" if np.isnan(error) else "refused" if np.isnan(itk) else "same"
        offset = "" if np.isnan(outcome.offset_mm) else f"{outcome.offset_mm:.2f}"
        truth = f"{outcome.truth_ml:.2f}" if outcome.truth_ml else ""
        cells = [str(hazard.number), hazard.made, said, level, truth, shown, other, offset]
        cells += [network[n]] if network else []
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def network_cells(
    bench: Bench, folder: Path, outline: Outline, hazards: tuple[Hazard, ...] = HAZARDS
) -> tuple[list[str], list[str]]:
    """For each hazard what outlining gives beside the clean scan, and the sentences that go with it."""
    clean = Hazard(0, "clean", lambda b, where: b.write(where), "", None)
    read = try_hazard(clean, bench, folder / "clean").volume
    assert read is not None, "the clean scan is blocked"
    usual = outline(read)
    cells = []
    for n, hazard in enumerate(hazards):
        outcome = try_hazard(hazard, bench, folder / f"n{n:02d}")
        if outcome.volume is None or np.isnan(outcome.measured_ml):
            cells.append("no numbers")
        else:
            cells.append(f"{outline(outcome.volume) - usual:+.2f}")
    return cells, [
        "",
        "*network change* is what the shipped networks outline on the hazardous scan minus what they outline on the",
        f"clean one ({usual:.2f} mL), both without prompts and scanned from a simulated head with",
        f"{bench.known.truth_ml:.2f} mL of blood, damaged as the row says. It holds for the weights of this version.",
        "Where slices with blood are missing or the head is another one, it holds that difference too.",
    ]


def main(argv: list[str] | None = None) -> int:
    """Make and read every hazard; write the table."""
    parser = argparse.ArgumentParser(description="Every hazard, made and read back.")
    parser.add_argument("--table", required=True, help="markdown file to write")
    parser.add_argument("--network", action="store_true", help="add what the shipped networks outline (minutes)")
    parser.add_argument("--answers", type=Path, help="JSON file that keeps the networks' answers, to go on later")
    args = parser.parse_args(argv)
    bench = Bench.of(phantom(step_mm=2.5), pixel_mm=2.5)
    cells: list[str] | None = None
    said: list[str] = []
    with tempfile.TemporaryDirectory(prefix="ich-hazards-") as folder:
        outcomes = [try_hazard(one, bench, Path(folder) / f"h{n:02d}") for n, one in enumerate(HAZARDS)]
        if args.network:
            outline = remembered(outlined_ml(), args.answers, shipped_weights())
            cells, said = network_cells(simulated_bench(), Path(folder), outline)
    failed = [one.hazard.made for one in outcomes if one.hazard.code and one.finding is None]
    text = "\n".join([*INTRODUCTION, *said, "", *table_lines(outcomes, cells)]) + "\n"
    Path(args.table).write_text(text, encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
