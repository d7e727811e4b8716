"""Other tools' networks on the same scan, in the same run: same device, dtype, runtime and threads, random weights.

Time does not depend on the weights. Only forward passes are counted: reading, resampling, windows' averages and
everything else that these tools do around their networks is left out.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ICHAnalysisLib.device import choose_dtype
from Testing.benchmarks.bench_settings import Bench
from Testing.benchmarks.report_table import Row
from Testing.benchmarks.stopwatch import Lap, repeated

#: nnU-Net 2.8's own ExperimentPlanner for a median scan of 32 x 512 x 512 at 5 x 0.45 x 0.45 mm, one channel.
PLAN_2D = {"features": (32, 64, 128, 256, 512, 512, 512, 512), "patch": (512, 512)}
PLAN_3D = {"features": (32, 64, 128, 256, 320, 320, 320), "patch": (20, 320, 256)}
KERNELS_3D = ((1, 3, 3),) * 3 + ((3, 3, 3),) * 4
STRIDES_3D = ((1, 1, 1), (1, 2, 2), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2))
CLASSES = 3  # background, ICH, IVH


def rows(bench: Bench) -> Iterator[Row]:
    """Each peer's forward time for the whole scan, and how many times our whole analysis it is."""
    torch.set_num_threads(bench.threads)
    dtype = choose_dtype(torch.device("cpu"))
    scan = (bench.slices, bench.matrix, bench.matrix)
    for name, time_peer in (
        ("nnU-Net 2-D", nnunet_2d),
        ("nnU-Net 3-D full resolution", nnunet_3d),
        ("MONAI SegResNet 3-D, sliding window", segresnet),
        ("BLAST-CT's DeepMedic, one of its 12 models", blast_ct),
        ("SAM ViT-B image encoder, every slice", sam_encoder),
    ):
        try:
            lap, count, note = time_peer(scan, dtype, bench.runs)
        except ImportError as error:
            yield Row("peers", f"{name}: not installed ({error.name})", float("nan"))
            continue
        kind = str(dtype).removeprefix("torch.")
        seconds = lap.seconds * count
        yield Row("peers", name, seconds, runs=lap.runs, note=f"{note}; {kind}, {bench.threads} threads")
        if "analysis" in bench.shared:
            asked = 5.0 if name == "nnU-Net 2-D" else None
            ratio = seconds / bench.shared["analysis"]
            yield Row("peers", f"{name} / our whole analysis", ratio, "x", lap.runs, limit=asked, at_least=True)


def timed(network: nn.Module, shape: tuple[int, ...], dtype: torch.dtype, runs: int) -> Lap:
    """One forward pass of zeros."""
    network = network.eval()
    data = torch.zeros(shape)

    def forward() -> Tensor:
        with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            return network(data)

    return repeated(forward, runs)


def tiles(scan: tuple[int, ...], patch: tuple[int, ...], step: float = 0.5) -> int:
    """How many patches a sliding window visits: nnU-Net's rule, steps of at most `step` of the patch."""
    counts = [-(-max(0, size - side) // max(1, int(side * step))) + 1 for size, side in zip(scan, patch)]
    return int(torch.tensor(counts).prod())


def nnunet_2d(scan: tuple[int, int, int], dtype: torch.dtype, runs: int) -> tuple[Lap, int, str]:
    """Every slice is one patch."""
    count = scan[0] * tiles(scan[1:], PLAN_2D["patch"])
    lap = timed(plain_unet(PLAN_2D["features"], nn.Conv2d, nn.InstanceNorm2d), (1, 1, *PLAN_2D["patch"]), dtype, runs)
    return lap, count, f"default v2 plan, {count} patches of 512 x 512, step 0.5, no mirroring, forward alone"


def nnunet_3d(scan: tuple[int, int, int], dtype: torch.dtype, runs: int) -> tuple[Lap, int, str]:
    """A sliding window; one patch is timed and stands for all."""
    count = tiles(scan, PLAN_3D["patch"])
    network = plain_unet(PLAN_3D["features"], nn.Conv3d, nn.InstanceNorm3d, KERNELS_3D, STRIDES_3D)
    lap = timed(network, (1, 1, *PLAN_3D["patch"]), dtype, min(runs, 3))
    return lap, count, f"default v2 plan, {count} patches of 20 x 320 x 256, step 0.5, no mirroring, one patch timed"


def plain_unet(
    features: tuple[int, ...],
    convolution: type[nn.Module],
    norm: type[nn.Module],
    kernels: tuple[tuple[int, ...], ...] | int = 3,
    strides: tuple[tuple[int, ...], ...] | None = None,
) -> nn.Module:
    """nnU-Net's network as its planner writes it down."""
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    stages = len(features)
    return PlainConvUNet(
        1, stages, features, convolution, kernels, strides or [1] + [2] * (stages - 1), [2] * stages, CLASSES,
        [2] * (stages - 1), conv_bias=True, norm_op=norm, norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True}, deep_supervision=False,
    )  # fmt: skip


def segresnet(scan: tuple[int, int, int], dtype: torch.dtype, runs: int) -> tuple[Lap, int, str]:
    """MONAI's SegResNet of 32 filters at 1 x 1 x 5 mm, windows of 192 x 192 x 32 that overlap by half."""
    from monai.networks.nets import SegResNet

    network = SegResNet(3, init_filters=32, in_channels=1, out_channels=CLASSES, blocks_down=(1, 2, 2, 4))
    count = tiles((32, 230, 230), (32, 192, 192))
    lap = timed(network, (1, 1, 192, 192, 32), dtype, min(runs, 3))
    return lap, count, f"32 filters, 230 x 230 x 32 at 1 x 1 x 5 mm, {count} windows of 192 x 192 x 32, one timed"


def blast_ct(scan: tuple[int, int, int], dtype: torch.dtype, runs: int) -> tuple[Lap, int, str]:
    """Its network at 1 mm with its own patches; the wheel holds no weights, and its command fetches them."""
    from blast_ct.models.deepmedic import DeepMedic

    network = DeepMedic(1, 5)
    inside = network.get_output_size((110, 110, 110))
    count = 1
    for size, side in zip((160, 230, 230), inside):
        count *= -(-size // int(side))
    lap = timed(network, (1, 1, 110, 110, 110), dtype, min(runs, 3))
    return lap, count, f"230 x 230 x 160 at 1 mm, {count} patches of 110 x 110 x 110, one timed"


def sam_encoder(scan: tuple[int, int, int], dtype: torch.dtype, runs: int) -> tuple[Lap, int, str]:
    """SAM's smallest encoder at its 1024 pixels; a box then takes the decoder alone."""
    from segment_anything import sam_model_registry

    sam = sam_model_registry["vit_b"]()
    lap = timed(sam.image_encoder, (1, 3, 1024, 1024), dtype, min(runs, 3))
    start = time.perf_counter()
    with torch.inference_mode():
        sparse, dense = sam.prompt_encoder(points=None, boxes=torch.tensor([[300.0, 300, 600, 600]]), masks=None)
        sam.mask_decoder(torch.zeros(1, 256, 64, 64), sam.prompt_encoder.get_dense_pe(), sparse, dense, False)
    decoder = 1000 * (time.perf_counter() - start)
    return lap, scan[0], f"{lap.seconds:.2f} s a slice, then {decoder:.0f} ms a box; one slice timed"
