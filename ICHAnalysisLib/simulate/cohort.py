"""One simulated patient: `simulate_case` draws what its `CaseSpec` leaves open, deterministically by seed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ICHAnalysisLib.ct.volume import CTVolume
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.simulate import acquisition as scanner
from ICHAnalysisLib.simulate import outcome as clinic
from ICHAnalysisLib.simulate.acquisition import Acquisition, AcquisitionSpec, draw_acquisition
from ICHAnalysisLib.simulate.confounders import Metal, add_confounders, metal_streaks, vary_outside
from ICHAnalysisLib.simulate.hemorrhage import FEATURES
from ICHAnalysisLib.simulate.insert import Blood, choose_start, insert_blood
from ICHAnalysisLib.simulate.midline import assumed_midline
from ICHAnalysisLib.simulate.push import make_push, push_scene, push_slices
from ICHAnalysisLib.simulate.scene import OUTSIDE, Grid, Paint, Scene, StackPlan

Location = Literal["deep", "lobar", "subtentorial"]


@dataclass(frozen=True)
class CaseSpec:
    """What to simulate; None = drawn.

    volume_ml: total intraparenchymal blood. density_hu: mean HU of the clot. feature: one of FEATURES.
    confounders: 0 none, 1 the usual mix, 2 often. randomize: strength of the background's variation (0 as it is).
    With a background and randomize 0 the scan keeps its own slices. ventricles: how strongly the ventricles vary
    besides (0 as they are), a varied background's in size, a procedural head's in shape too. center: "second" is
    another hospital.
    """

    has_ich: bool | None = None
    location: Location | None = None
    side: Literal["left", "right"] | None = None
    volume_ml: float | None = None
    density_hu: float | None = None
    feature: str | None = None
    ivh: bool | None = None
    edema_mm: float | None = None
    mass_effect: float | None = None
    positive_fraction: float = 0.7
    confounders: float = 1.0
    randomize: float = 1.0
    ventricles: float = 0.0
    center: Literal["first", "second"] = "first"
    acquisition: AcquisitionSpec = field(default_factory=AcquisitionSpec)

    def __post_init__(self) -> None:
        if self.volume_ml is not None and not 0.05 <= self.volume_ml <= 250:
            raise UsageError(f"Case: volume_ml {self.volume_ml} must lie between 0.05 and 250.")
        if not 0 <= self.ventricles <= 1:
            raise UsageError(f"Case: ventricles {self.ventricles} must lie between 0 and 1.")
        if self.location is not None and self.location not in clinic.LOCATION_SHARES:
            raise UsageError(f"Case: location {self.location!r} is not deep, lobar or subtentorial.")
        if self.center not in clinic.CENTERS:
            raise UsageError(f"Case: center {self.center!r} is not one of {', '.join(clinic.CENTERS)}.")
        if self.feature is not None and self.feature not in FEATURES:
            raise UsageError(f"Case: feature {self.feature!r} is not one of {', '.join(FEATURES)}.")


@dataclass(frozen=True, eq=False)
class SimulatedCase:
    """A simulated scan with its truth. labels: uint8 (K, J, I), 1 ICH, 2 IVH, 3 edema."""

    case_id: str
    volume: CTVolume
    labels: np.ndarray
    truth: dict[str, Any]
    record: dict[str, Any]
    outcome: dict[str, Any]
    parameters: dict[str, Any]


def simulate_case(
    seed: int, spec: CaseSpec | None = None, background: CTVolume | str | Path | None = None
) -> SimulatedCase:
    """A scan of a procedural head, or of the bleed-free head `background` (a CTVolume or a path) varied and bled into.

    The same seed, spec and background give the same case, bit for bit. Raises UsageError where the background shows no
    brain, or where no clot of the asked size fits.
    """
    spec = _at_center(spec or CaseSpec())
    rng = np.random.default_rng([int(seed), 20])
    wanted = _draw_blood(spec, rng)
    if background is None:
        scene, base, acquired = _procedural(spec, rng)
    else:
        scene, base, acquired = _on_background(_as_volume(background), spec, rng)
    plan = acquired.plan
    start = choose_start(scene, wanted, rng) if wanted.present else None
    push = None
    if start is not None and wanted.mass_effect > 0:
        push = make_push(scene, start.point, wanted.mass_effect * wanted.volume_ml)
        push_scene(scene, push)
        base = None if base is None else push_slices(base, plan, push)
        scene.notes["largest_displacement_mm"] = push.largest_mm
    paint = Paint(scene.grid)
    names, metal = add_confounders(scene, paint, rng, wanted.present, spec.confounders)
    truth = insert_blood(scene, paint, wanted, start, rng)
    hu, labels = _expose(scene, base, paint, acquired, rng, metal)
    volume = plan.volume(hu, source={"kind": "simulated", "simulated": True})
    truth["epicenter_ras_mm"] = _ras(plan, truth.pop("epicenter_scene_mm"))
    for lesion in truth["lesions"]:
        lesion["epicenter_ras_mm"] = _ras(plan, lesion.pop("epicenter_scene_mm"))
    truth["midline_shift_mm"] = None if scene.midline is None else round(scene.midline.shift_mm(push), 3)
    truth["mask_volume_ml"] = volume.mask_volume_ml(labels == 1)
    record, outcome = _clinical(truth, rng, clinic.CENTERS[spec.center].mortality_shift)
    parameters = {
        "seed": int(seed),
        "center": spec.center,
        "kind": "procedural" if background is None else "background",
        "blood": wanted.as_dict(),
        "confounders": names,
        "acquisition": acquired.parameters,
        **scene.notes,
    }
    return SimulatedCase(f"sim{int(seed):07d}", volume, labels, truth, record, outcome, parameters)


def _at_center(spec: CaseSpec) -> CaseSpec:
    """`spec` with the scanner of its center."""
    center = clinic.CENTERS[spec.center]
    acquired = replace(
        spec.acquisition,
        shift_hu=spec.acquisition.shift_hu + center.shift_hu,
        noise_factor=spec.acquisition.noise_factor * center.noise_factor,
    )
    return replace(spec, acquisition=acquired)


def _ras(plan: StackPlan, point: Any) -> list[float] | None:
    """Scanner RAS mm of one scene point."""
    return None if point is None else [round(float(v), 3) for v in plan.scene_to_ras(np.asarray(point))[0]]


def _as_volume(background: CTVolume | str | Path) -> CTVolume:
    """The background scan; a path is read once."""
    return background if isinstance(background, CTVolume) else _read(str(background))


@lru_cache(maxsize=4)
def _read(path: str) -> CTVolume:
    from ICHAnalysisLib.simulate.background import read_background

    return read_background(Path(path))


def _draw_blood(spec: CaseSpec, rng: np.random.Generator) -> Blood:
    """The hemorrhage to insert, drawn where the spec leaves it open."""
    has_ich = bool(rng.random() < spec.positive_fraction) if spec.has_ich is None else spec.has_ich
    location = clinic.draw_location(rng, clinic.CENTERS[spec.center])
    location = spec.location or location
    side = str(rng.choice(["left", "right"]))
    volume = float(np.clip(clinic.draw_volume_ml(rng, location), 0.2, clinic.CAP_ML[location]))
    volume = volume if spec.volume_ml is None else spec.volume_ml
    feature = str(rng.choice(FEATURES, p=[0.42, 0.13, 0.08, 0.1, 0.05, 0.1, 0.12]))
    feature = spec.feature or feature
    mean = rng.uniform(41, 50) if feature == "low_density" else np.clip(rng.normal(62, 6), 50, 78)
    ivh = bool(rng.random() < clinic.ivh_probability(location, volume))
    edema = float(rng.choice([rng.uniform(0, 2), rng.uniform(2, 5), rng.uniform(5, 10)], p=[0.45, 0.3, 0.25]))
    mass = float(rng.uniform(0.1, 0.8)) if volume > 3 and rng.random() < 0.75 else 0.0
    return Blood(
        present=has_ich,
        location=location,
        side=spec.side or side,
        volume_ml=volume,
        mean_hu=float(mean) if spec.density_hu is None else spec.density_hu,
        feature=feature,
        ivh=ivh if spec.ivh is None else spec.ivh,
        edema_mm=edema if spec.edema_mm is None else spec.edema_mm,
        irregularity=float(rng.choice([rng.uniform(0.25, 0.8), rng.uniform(0.8, 1.4)], p=[0.7, 0.3])),
        satellites=int(rng.choice([0, 1, 2, 4], p=[0.72, 0.14, 0.08, 0.06])),
        mass_effect=mass if spec.mass_effect is None else spec.mass_effect,
        exact=spec.volume_ml is not None,
    )


def _grid_for(plan: StackPlan, detail: float, half_x: float, half_y: float) -> Grid:
    """A fine grid that holds every slice of `plan`, with layers of about a third of the thinnest slice."""
    thin = float(plan.thickness_mm.min())
    dz = thin / max(round(thin / 1.7), 1)
    low = float((plan.positions_mm - plan.thickness_mm / 2).min()) + dz / 2
    high = float((plan.positions_mm + plan.thickness_mm / 2).max())
    shape = (int(np.ceil((high - low) / dz)) + 1, int(2 * half_y / detail) + 1, int(2 * half_x / detail) + 1)
    return Grid((low, -half_y, -half_x), (dz, detail, detail), shape)


def _procedural(spec: CaseSpec, rng: np.random.Generator) -> tuple[Scene, np.ndarray | None, Acquisition]:
    from ICHAnalysisLib.simulate.anatomy import build_head, draw_anatomy
    from ICHAnalysisLib.simulate.ventricles import with_other_ventricles

    acquired = draw_acquisition(spec.acquisition, rng)
    grid = _grid_for(acquired.plan, acquired.detail_mm, 92.0, 118.0)
    anatomy = draw_anatomy(rng)
    if spec.ventricles > 0:
        anatomy = with_other_ventricles(anatomy, rng, spec.ventricles)
    return build_head(grid, rng, anatomy), None, acquired


def _on_background(volume: CTVolume, spec: CaseSpec, rng: np.random.Generator) -> tuple[Scene, np.ndarray, Acquisition]:
    """Scene and base slices of the real head: varied and acquired anew, or its own slices where randomize is 0."""
    from ICHAnalysisLib.simulate import background as real
    from ICHAnalysisLib.simulate.ventricles import with_ventricles_resized

    if spec.randomize <= 0 < spec.ventricles:
        raise UsageError(
            f"Case: ventricles {spec.ventricles} cannot vary in a head that is kept as it is; raise randomize above 0."
        )
    prepared = real.prepare(volume)
    if spec.randomize <= 0:
        plan = prepared.plan
        acquired = Acquisition(plan, 0.0, 1.0, 0.0, "full", False, 0.9, False, parameters={"native_slices": True})
        variation = real.identity_variation()
        base = prepared.hu
    else:
        variation = real.draw_variation(prepared, rng, spec.randomize)
        if spec.ventricles > 0:
            variation = with_ventricles_resized(prepared, variation, rng, spec.ventricles)
        bottom, top = real.extent(prepared, variation)
        acquired = draw_acquisition(real.within(spec.acquisition, bottom, top, rng), rng)
        base = real.background_slices(prepared, variation, acquired.plan)
        base = real.vary_density(base, acquired.plan.spacing_mm, rng, spec.randomize)
    plan = acquired.plan
    middle = plan.centers_mm.mean(0)
    grid = _grid_for(plan, 1.0, 95.0, 110.0)
    if spec.randomize <= 0:
        grid = Grid((grid.start_mm[0], middle[0] - 125.0, middle[1] - 110.0), grid.step_mm, (grid.shape[0], 250, 220))
    scene = real.background_scene(prepared, variation, grid)
    scene.notes["variation"] = variation.parameters
    scene.midline = assumed_midline(scene)
    return scene, base, acquired


def _expose(
    scene: Scene,
    base: np.ndarray | None,
    paint: Paint,
    acquired: Acquisition,
    rng: np.random.Generator,
    metal: list[Metal],
) -> tuple[np.ndarray, np.ndarray]:
    """(HU, labels) slices: paint laid over the base with partial volume, then noise, artifacts and storage."""
    plan, grid, real = acquired.plan, scene.grid, base is not None
    if base is None:
        assert scene.hu is not None
        slices = plan.render(scene.hu * paint.keep + paint.add, grid, fill=-1000.0)
        if acquired.holder:
            slices = scanner.head_holder(slices, plan, rng)
    else:
        keep = 1 - plan.render(1 - paint.keep, grid)
        texture = base - _smooth_in_plane(base, 1.5 / plan.spacing_mm)
        texture = np.where((base > 0) & (base < 90), texture, 0)
        slices = base * keep + plan.render(paint.add, grid) + (1 - keep) * np.clip(texture, -8, 8)
    blood, ivh, edema = (plan.render(label, grid) for label in (paint.blood, paint.ivh, paint.edema))
    labels = np.zeros(slices.shape, dtype=np.uint8)
    labels[edema >= 0.5] = 3
    labels[ivh >= 0.5] = 2
    labels[blood >= 0.5] = 1
    if acquired.artifacts:
        inside = plan.render((scene.tissue != OUTSIDE).astype(np.float32), grid)
        slices = vary_outside(slices, inside, plan, rng, 0.6)
        slices = scanner.blur_and_shift(slices, acquired, rng)
    if metal:
        slices = metal_streaks(slices, plan, metal, rng)
    if acquired.noise_hu > 0:
        # A resampled real slice keeps part of its own noise.
        noise = acquired.noise_hu if not real else 0.7 * acquired.noise_hu
        if acquired.artifacts and not real:
            slices = scanner.base_artifacts(slices, plan, rng, float(rng.uniform(0.4, 1.2)))
        slices = scanner.add_noise(slices, plan, rng, noise, acquired.kernel_mm)
    return scanner.store(slices, acquired), labels


def _smooth_in_plane(slices: np.ndarray, sigma: float) -> np.ndarray:
    from scipy import ndimage

    return ndimage.gaussian_filter(slices, (0, sigma, sigma))


def _clinical(
    truth: dict[str, Any], rng: np.random.Generator, mortality_shift: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Record and outcome; without hemorrhage a record alone."""
    if not truth["has_ich"]:
        record = clinic.draw_record(rng, "deep", 0.0, False)
        return record, {}
    return clinic.draw_patient(rng, truth["location"], truth["volume_ml"], truth["ivh_ml"], mortality_shift)
