"""One slice through a preset at full size: `python -m Testing.benchmarks.paper_forward [--preset paper] [--threads N]`.

Builds the preset with random weights in float32, runs one forward pass with a box, points and a full text in inference
mode on the CPU, and prints time and the peak of resident memory. Speed and memory do not depend on the weights.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time

import numpy as np
import torch

from ICHAnalysisLib.clinical import ClinicalRecord, tokenize
from ICHAnalysisLib.config.ich_scnet import PREPROCESS, PRESETS
from ICHAnalysisLib.networks.ich_scnet import build_ich_scnet
from ICHAnalysisLib.prompts import PromptBatch, SlicePrompts


def peak_gib() -> float:
    """Largest resident memory of this process so far, GiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**30 if sys.platform == "darwin" else peak / 2**20


def main(argv: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="paper", choices=sorted(PRESETS))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    cfg, size = PRESETS[args.preset], PREPROCESS[args.preset].size
    model = build_ich_scnet(cfg).eval()
    print(f"{args.preset}: {sum(p.numel() for p in model.parameters()) / 1e6:,.0f} M parameters", flush=True)
    print(f"built: peak {peak_gib():.1f} GiB", flush=True)
    third = size / 3
    prompts = SlicePrompts(
        np.array([[third, third, 2 * third, 2 * third]], np.float32),
        np.array([[size / 2, size / 2], [third, third]], np.float32),
        np.array([1, 0]),
    )
    batch = PromptBatch.from_slices([prompts], cfg.max_boxes, cfg.max_points)
    sentence = ClinicalRecord(age=64, sex="male", gcs=13, onset_to_ct_h=3.0).sentence(False)
    image, text = torch.rand(1, 3, size, size), torch.tensor([tokenize(sentence).ids])
    wall, processor = time.monotonic(), time.process_time()
    with torch.inference_mode():
        output = model(image, batch, text)
    wall, processor = time.monotonic() - wall, time.process_time() - processor
    shapes = [tuple(part.shape) for part in (output.segmentation, output.outcome) if part is not None]
    finite = all(bool(part.isfinite().all()) for part in (output.segmentation, output.outcome) if part is not None)
    print(f"one slice of {size} x {size}, SAM at {cfg.sam.image_size}, float32, {args.threads} threads")
    print(f"outputs {shapes}, finite: {finite}")
    print(f"{wall:.0f} s, {processor:.0f} s of processor time, peak {peak_gib():.1f} GiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
