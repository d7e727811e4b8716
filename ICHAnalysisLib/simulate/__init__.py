"""Simulated head CT with known hemorrhage: procedural heads, or bleeds inserted into a real bleed-free head."""

from ICHAnalysisLib.simulate.acquisition import AcquisitionSpec
from ICHAnalysisLib.simulate.cohort import CaseSpec, SimulatedCase, simulate_case

__all__ = ["AcquisitionSpec", "CaseSpec", "SimulatedCase", "simulate_case"]
