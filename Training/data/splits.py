"""Folds by patient, balanced by what matters, written to a file and checked for leaks.

`python -m Training.data.splits MANIFEST_OR_CACHE --out folds.json [--folds 5] [--seed 0]`
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ICHAnalysisLib.errors import ICHAnalysisError, UsageError


@dataclass(frozen=True)
class Member:
    """One case as far as a split cares. content: digest of its pixels where known, to find one scan under two names."""

    case_id: str
    patient_id: str
    stratum: str
    content: str | None = None


@dataclass(frozen=True)
class Folds:
    """Which fold each case is in, 0 to count - 1. data: fingerprint of the cases they were made from."""

    count: int
    seed: int
    data: str
    fold_of: dict[str, int]

    def split(self, fold: int, case_ids: Iterable[str]) -> dict[str, list[str]]:
        """{"train", "val"} of the given cases where `fold` validates. Raises UsageError for a case without a fold."""
        if not 0 <= fold < self.count:
            raise UsageError(f"Fold {fold} does not exist; there are folds 0 to {self.count - 1}.")
        parts: dict[str, list[str]] = {"train": [], "val": []}
        for case_id in case_ids:
            if case_id not in self.fold_of:
                raise UsageError(f"Case {case_id} is in no fold; make the folds anew from the present data.")
            parts["val" if self.fold_of[case_id] == fold else "train"].append(case_id)
        return parts


def make_folds(members: Sequence[Member], count: int = 5, seed: int = 0) -> Folds:
    """Stratified group folds: no patient in two of them, every stratum spread as evenly as patients allow.

    Cases with the same pixels count as one patient. Strata with fewer patients than folds are merged.
    Raises UsageError where there are fewer patients than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    groups = _groups(members)
    if count < 2 or len(set(groups)) < count:
        raise UsageError(f"{count} folds need at least 2 folds and as many patients; there are {len(set(groups))}.")
    strata = _merged_strata(members, groups, count)
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    fold_of: dict[str, int] = {}
    for fold, (_, held_out) in enumerate(splitter.split(np.zeros(len(members)), strata, groups)):
        fold_of.update((members[n].case_id, fold) for n in held_out)
    folds = Folds(count, seed, fingerprint(members), dict(sorted(fold_of.items())))
    check_leaks(members, folds.fold_of)
    return folds


def check_leaks(members: Sequence[Member], part_of: Mapping[str, object]) -> None:
    """Raise UsageError where a patient, or one and the same scan, stands in two parts (folds or splits).

    The message names cases, never patients. The patient key must be the one of the source family: public sets share
    patients (RSNA, BHSD, MBH-Seg, HemSeg), and HemSeg-500's own split has patients in two parts.
    """
    leaks = []
    for what in ("patient_id", "content"):
        first: dict[str, Member] = {}
        for member in members:
            value = getattr(member, what)
            if value is None or member.case_id not in part_of:
                continue
            known = first.setdefault(value, member)
            if part_of[known.case_id] != part_of[member.case_id]:
                leaks.append(
                    f"{known.case_id} and {member.case_id} ({'patient' if what == 'patient_id' else 'same pixels'})"
                )
    if leaks:
        more = f" and {len(leaks) - 10} more" if len(leaks) > 10 else ""
        raise UsageError(
            f"{len(leaks)} leaks between parts: {'; '.join(leaks[:10])}{more}. Make the parts anew, by patient."
        )


def fingerprint(members: Sequence[Member]) -> str:
    """SHA-256 over cases, patients and strata, independent of their order."""
    lines = sorted(f"{m.case_id}\0{m.patient_id}\0{m.stratum}\0{m.content or ''}\n" for m in members)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def write_folds(path: str | os.PathLike, folds: Folds) -> Path:
    """Write folds as JSON under a temporary name and then in place."""
    target = Path(path)
    temporary = target.with_name(target.name + ".tmp")
    temporary.write_text(json.dumps(asdict(folds), indent=1), encoding="utf-8")
    os.replace(temporary, target)
    return target


def read_folds(path: str | os.PathLike) -> Folds:
    """The inverse of `write_folds`; raises UsageError for a file that is no folds file."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        return Folds(
            int(data["count"]), int(data["seed"]), str(data["data"]), {k: int(v) for k, v in data["fold_of"].items()}
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path}: not a folds file ({type(error).__name__}: {error}); write one with Training.data.splits."
        ) from error


def members_of_cache(folder: str | os.PathLike) -> list[Member]:
    """The cached cases: strata of hemorrhage, location, outcome and source."""
    from Training.data.cache import open_cache

    members = []
    for case in open_cache(folder):
        outcome = case.meta.get("outcome") or {}
        stratum = _stratum(
            case.meta.get("has_ich"), case.meta.get("location"), outcome.get("poor_outcome"), case.meta.get("source")
        )
        members.append(Member(case.case_id, case.patient_id, stratum, case.meta.get("image_sha256")))
    return members


def members_of_manifest(path: str | os.PathLike) -> list[Member]:
    """The cases of a manifest, slices joined to scans; the same strata."""
    from Training.data.manifest import read_manifest

    members: dict[str, Member] = {}
    bleeds: Counter[str] = Counter()
    rows = read_manifest(path, check_files=False).rows
    for row in rows:
        bleeds[row.scan_case_id] += int(row.has_ich == 1)
    for row in rows:
        has_ich = 1 if bleeds[row.scan_case_id] else row.has_ich
        stratum = _stratum(has_ich, row.location, row.outcome_binary, row.source)
        members.setdefault(row.scan_case_id, Member(row.scan_case_id, row.patient_id, stratum))
    return list(members.values())


def _stratum(*facts: object) -> str:
    return "/".join("?" if fact is None else str(int(fact)) if isinstance(fact, bool) else str(fact) for fact in facts)


def _groups(members: Sequence[Member]) -> list[str]:
    """The group of each case: its patient, joined with patients that share a scan's pixels."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    for member in members:
        if member.content is not None:
            parent[root(f"content {member.content}")] = root(f"patient {member.patient_id}")
    return [root(f"patient {member.patient_id}") for member in members]


def _merged_strata(members: Sequence[Member], groups: Sequence[str], count: int) -> list[str]:
    """Each case's stratum; one with fewer patients than folds loses facts, last first, until it is large enough."""
    strata = [member.stratum for member in members]
    while rare := _rare(strata, groups, count):
        if not any(rare):  # nothing left to drop: join the largest
            common = Counter(stratum for stratum in strata if stratum not in rare).most_common(1)
            return [common[0][0] if stratum in rare and common else stratum for stratum in strata]
        strata = [stratum.rpartition("/")[0] if stratum in rare else stratum for stratum in strata]
    return strata


def _rare(strata: Sequence[str], groups: Sequence[str], count: int) -> set[str]:
    """Strata with fewer patients than folds."""
    patients: dict[str, set[str]] = {}
    for stratum, group in zip(strata, groups, strict=True):
        patients.setdefault(stratum, set()).add(group)
    return {stratum for stratum, found in patients.items() if len(found) < count}


def main(argv: list[str] | None = None) -> int:
    """Command line; 0 done, 2 wrong use."""
    parser = argparse.ArgumentParser(prog="python -m Training.data.splits", description="Write patient-level folds.")
    parser.add_argument("data", type=Path, help="manifest CSV or cache folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    try:
        members = members_of_cache(args.data) if args.data.is_dir() else members_of_manifest(args.data)
        folds = make_folds(members, args.folds, args.seed)
    except ICHAnalysisError as error:
        print(error, file=sys.stderr)
        return 2
    write_folds(args.out, folds)
    sizes = Counter(folds.fold_of.values())
    print(
        f"{args.out}: {len(members)} cases in {folds.count} folds of "
        f"{', '.join(str(sizes[n]) for n in range(folds.count))}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
