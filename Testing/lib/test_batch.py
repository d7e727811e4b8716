"""Batches: which cases there are, a row a case, resuming after a kill, workers that die, growth, the summary page."""

from __future__ import annotations

import csv
import json
import logging
import os
import stat
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest
from batch_analyzers import answer_where, die_on_bad, raise_unexpectedly, read_and_answer
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from ICHAnalysisLib.batch import run_batch
from ICHAnalysisLib.batch_cases import Case, find_cases
from ICHAnalysisLib.clinical import ClinicalRecord
from ICHAnalysisLib.config.batch import BatchOptions
from ICHAnalysisLib.errors import UsageError
from ICHAnalysisLib.growth import growth_rows

HERE = Path(__file__).parent


def make_cases(folder: Path, count: int, corrupt: tuple[int, ...] = ()) -> list[Case]:
    """Cases whose "scans" are small JSON files."""
    folder.mkdir(parents=True, exist_ok=True)
    cases = []
    for n in range(count):
        scan = folder / f"scan{n}.json"
        scan.write_text("not json" if n in corrupt else json.dumps({"ml": n + 1}))
        cases.append(Case(f"case-{n}", str(scan)))
    return cases


def read_table(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_dicom(path: Path, study: str, patient: str = "p", date: str = "", time: str = "") -> None:
    """A DICOM header without pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID, header.SOPInstanceUID = CTImageStorage, generate_uid()
    header.StudyInstanceUID, header.PatientID = study, patient
    header.AcquisitionDate, header.AcquisitionTime = date, time
    header.save_as(path, enforce_file_format=True)


def test_cases_of_a_tree_are_studies_zips_and_images(tmp_path):
    study_a, study_b = generate_uid(), generate_uid()
    write_dicom(tmp_path / "Doe^Jane" / "S1" / "I1", study_a)
    write_dicom(tmp_path / "Doe^Jane" / "S2" / "I1", study_a)
    write_dicom(tmp_path / "other" / "I1", study_b)
    (tmp_path / "scan.nii.gz").touch()
    (tmp_path / "scan_mask.nii.gz").touch()
    (tmp_path / "study.zip").touch()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "1.dcm").write_bytes(b"")
    (tmp_path / "notes.txt").touch()
    cases = find_cases(tmp_path)
    scans = {Path(case.scan).relative_to(tmp_path.resolve()).as_posix() for case in cases}
    assert scans == {"Doe^Jane", "other", "scan.nii.gz", "study.zip", "broken"}
    assert not any("Doe" in case.case_id or "Doe" in case.slug for case in cases)
    assert "Doe^Jane" in {case.case_id for case in find_cases(tmp_path, names=True)}
    assert [case.case_id for case in cases] == [case.case_id for case in find_cases(tmp_path)]


def test_two_studies_in_one_folder_tree_level_stay_apart(tmp_path):
    study_a, study_b = generate_uid(), generate_uid()
    write_dicom(tmp_path / "1" / "I1", study_a)
    write_dicom(tmp_path / "2" / "I1", study_b)
    write_dicom(tmp_path / "3" / "I1", study_a)
    assert len(find_cases(tmp_path)) == 3


def test_cases_of_a_table(tmp_path):
    table = tmp_path / "manifest.csv"
    table.write_text("case_id,image,patient_id,scan_time_h,age,slice_index\na,x/1.nii.gz,p1,2.5,71,\nb,2.nii,p1,,,3\n")
    (case,) = find_cases(table)
    assert case == Case("a", str((tmp_path / "x/1.nii.gz").resolve()), None, {"age": 71.0}, "p1", 2.5)


def test_clinical_cells_of_a_table_make_a_record(tmp_path):
    table = tmp_path / "cases.csv"
    table.write_text(
        "case_id,image,age,sex,gcs,onset_to_ct_hours,cognition_impaired,antithrombotics\n"
        "a,1.nii,71,M,13,2.5,0,yes\nb,2.nii,NaN, female ,NA,,no,\nc,3.nii,old,,15.5,,maybe,\n"
    )
    first, second, wrong = (case.clinical for case in find_cases(table))
    assert ClinicalRecord.from_dict(first) == ClinicalRecord(
        age=71, sex="male", gcs=13, onset_to_ct_h=2.5, cognitive_impairment=False, antithrombotics=True
    )
    assert ClinicalRecord.from_dict(second) == ClinicalRecord(sex="female", cognitive_impairment=False)
    for name, said in (("age", "age is 'old'"), ("gcs", "gcs is 15.5"), ("cognition_impaired", "is 'maybe'")):
        with pytest.raises(UsageError, match=said):
            ClinicalRecord.from_dict({name: wrong[name]})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case_id,image\na,1.nii\na,2.nii\n", "twice"),
        ("case_id,file\na,1.nii\n", "column 'image'"),
        ("case_id,image\na,\n", "line 2"),
        ("case_id,image\n", "no CT scan"),
    ],
)
def test_wrong_tables_are_refused(tmp_path, text, message):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(UsageError, match=message):
        find_cases(tmp_path / "list.csv")


def test_slugs_are_plain_and_unique():
    ids = ["../../etc/passwd", "a/b", "a_b", "=1+1", "x" * 200, "x" * 201, "..", "Jäger"]
    slugs = [Case(name, "s").slug for name in ids]
    assert len(set(slugs)) == len(ids)
    assert all(set(slug) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") for slug in slugs)
    assert all(not slug.startswith(".") and "/" not in slug and len(slug) <= 80 for slug in slugs)


def test_a_batch_ends_with_a_row_a_case(tmp_path):
    cases = make_cases(tmp_path / "in", 4, corrupt=(2,))
    result = run_batch(cases, tmp_path / "out", analyzer=read_and_answer)
    rows = read_table(tmp_path / "out" / "cases.csv")
    assert [row["case_id"] for row in rows] == ["case-0", "case-1", "case-2", "case-3"]
    assert [row["status"] for row in rows] == ["ok", "ok", "failed", "ok"]
    assert [row["volume_ml"] for row in rows] == ["1.0", "2.0", "", "4.0"]
    assert "cannot be decoded" in rows[2]["message"] and "scan2" not in rows[2]["message"]
    assert (tmp_path / "out" / rows[0]["report"]).is_file()
    assert (result.count("ok"), result.count("failed")) == (3, 1)
    again = run_batch(cases, tmp_path / "out", analyzer=read_and_answer)
    assert again.resumed == 4 and len((tmp_path / "in" / "runs.log").read_text().split()) == 4


def test_another_file_or_option_runs_the_case_again(tmp_path):
    cases = make_cases(tmp_path / "in", 2)
    run_batch(cases, tmp_path / "out", analyzer=read_and_answer)
    other = [Case("case-0", cases[1].scan), cases[1]]
    assert run_batch(other, tmp_path / "out", analyzer=read_and_answer).resumed == 1
    assert [row["volume_ml"] for row in read_table(tmp_path / "out" / "cases.csv")] == ["2.0", "2.0"]


def test_failed_cases_are_tried_again_on_request(tmp_path):
    cases = make_cases(tmp_path / "in", 2, corrupt=(0,))
    run_batch(cases, tmp_path / "out", analyzer=read_and_answer)
    Path(cases[0].scan).write_text('{"ml": 9}')
    assert run_batch(cases, tmp_path / "out", analyzer=read_and_answer).count("failed") == 1
    result = run_batch(cases, tmp_path / "out", BatchOptions(retry_failed=True), analyzer=read_and_answer)
    assert result.count("ok") == 2 and result.resumed == 1


def test_a_bug_fails_its_case_and_names_no_file(tmp_path):
    cases = make_cases(tmp_path / "Doe_Jane", 1)
    run_batch(cases, tmp_path / "out", analyzer=raise_unexpectedly)
    (row,) = read_table(tmp_path / "out" / "cases.csv")
    assert row["status"] == "failed" and "KeyError" in row["message"] and "Doe" not in row["message"]
    details = tmp_path / "out" / "cases" / "case-0" / "error.txt"
    assert "no slice in" in details.read_text() and stat.S_IMODE(details.stat().st_mode) == 0o600


def test_forty_cases_survive_a_kill(tmp_path):
    """A SIGKILL in the middle: after the rerun 37 results and 3 explained failures, none twice, none repeated."""
    cases = make_cases(tmp_path / "in", 40, corrupt=(5, 21, 33))
    table = tmp_path / "list.csv"
    table.write_text("case_id,image\n" + "".join(f"{case.case_id},{case.scan}\n" for case in cases))
    program = (
        "from ICHAnalysisLib.batch import run_batch; from ICHAnalysisLib.batch_cases import find_cases;"
        "from batch_analyzers import kill_on_seventeen as a; import sys;"
        "run_batch(find_cases(sys.argv[1]), sys.argv[2], analyzer=a)"
    )
    paths = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    command = [sys.executable, "-c", program, str(table), str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": paths}
    first = subprocess.run(command, env=environment, timeout=120, check=False)
    assert first.returncode == -9
    finished = {path.stem for path in (tmp_path / "out" / "rows").glob("*.json")}
    assert finished == {f"case-{n}" for n in range(17)}
    assert subprocess.run(command, env=environment, timeout=120, check=False).returncode == 0
    rows = read_table(tmp_path / "out" / "cases.csv")
    assert Counter(row["status"] for row in rows) == {"ok": 37, "failed": 3}
    assert len({row["case_id"] for row in rows}) == 40
    assert all(row["message"] for row in rows if row["status"] == "failed")
    runs = Counter((tmp_path / "in" / "runs.log").read_text().split())
    assert len(runs) == 40 and set(runs.values()) == {1}
    assert rows[17]["attempts"] == "2"


def test_a_case_that_kills_the_process_every_time_is_given_up(tmp_path):
    from ICHAnalysisLib.batch_store import BatchStore

    (case,) = make_cases(tmp_path / "in", 1)
    store = BatchStore(tmp_path / "out")
    store.begin(case), store.begin(case)
    result = run_batch([case], tmp_path / "out", analyzer=read_and_answer)
    assert result.rows[0]["status"] == "failed" and "ended 2 times" in result.rows[0]["message"]
    assert not (tmp_path / "in" / "runs.log").exists()


def test_a_dask_cluster_loses_a_worker_and_no_case(tmp_path, caplog):
    pytest.importorskip("distributed", reason="the extra 'batch' is not installed")
    cases = make_cases(tmp_path / "in", 8)
    cases[2], cases[5] = Case("weak", cases[2].scan), Case("bad", cases[5].scan)
    options = BatchOptions(workers=2, worker_memory_gb=0.1)
    result = run_batch(cases, tmp_path / "out", options, analyzer=die_on_bad)
    by_id = {row["case_id"]: row for row in result.rows}
    assert len(result.rows) == len(by_id) == 8
    assert [name for name, row in by_id.items() if row["status"] != "ok"] == ["bad"]
    assert "ended 2 times" in by_id["bad"]["message"] and by_id["weak"]["attempts"] == 2
    runs = Counter((tmp_path / "in" / "runs.log").read_text().split())
    assert set(runs) == set(by_id) - {"bad"}
    told = [item for item in caplog.records if item.name.startswith("distributed") and item.levelno < logging.ERROR]
    assert not told  # a user is not told of every connection


@contextmanager
def one_worker_cluster():
    """A running scheduler with one worker, as somebody else would have started it."""
    distributed = pytest.importorskip("distributed", reason="the extra 'batch' is not installed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, protocol="tcp://", host="127.0.0.1", dashboard_address=None
    ) as cluster:
        yield cluster


def test_a_running_scheduler_takes_the_cases(tmp_path):
    cases = make_cases(tmp_path / "in", 3)
    with one_worker_cluster() as cluster:
        options = BatchOptions(scheduler=cluster.scheduler_address)
        result = run_batch(cases, tmp_path / "out", options, analyzer=read_and_answer)
    assert result.count("ok") == 3


def test_no_scheduler_is_said_in_a_sentence(tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="the extra 'batch' is not installed")
    cases = make_cases(tmp_path / "in", 1)
    monkeypatch.setattr("ICHAnalysisLib.batch._CONNECT_S", 0.5)
    with pytest.raises(UsageError, match="No Dask scheduler answers"):
        run_batch(cases, tmp_path / "out", BatchOptions(scheduler="tcp://127.0.0.1:9"), analyzer=read_and_answer)


def test_growth_pairs_scans_of_one_patient_in_time():
    def stored(case_id, patient, hours, ml, status="ok"):
        row = {"case_id": case_id, "status": status, "volume_ml": ml}
        return {"row": row, "private": {"patient": patient, "acquired_h": hours}}

    rows = growth_rows(
        [
            stored("b", "p", 30.0, 19.0), stored("a", "p", 6.0, 10.0), stored("c", "p", 54.0, 18.0),
            stored("d", "q", 1.0, 5.0), stored("e", "", 2.0, 5.0), stored("f", "q", None, 5.0),
            stored("g", "q", 9.0, None, "failed"), stored("h", "q", 1.0, 6.0),
        ]
    )  # fmt: skip
    assert [(row["case_id_first"], row["case_id_second"]) for row in rows] == [("a", "b"), ("b", "c")]
    assert rows[0]["growth_ml"] == 9.0 and rows[0]["growth_percent"] == pytest.approx(90.0) and rows[0]["expansion"]
    assert rows[1]["hours"] == 24.0 and rows[1]["growth_ml"] == -1.0 and not rows[1]["expansion"]


def test_growth_from_dicom_dates_names_no_patient(tmp_path):
    cases = []
    for name, time in (("one", "080000"), ("two", "200000")):
        folder = tmp_path / "in" / name
        write_dicom(folder / "I1.dcm", generate_uid(), "DOE-123", "20200102", time)
        cases.append(Case(name, str(folder)))
    from batch_analyzers import upright_volume

    def analyzer(case, folder, options):
        from output_cases import bleed_labels, positive_analysis

        volume = upright_volume()
        return positive_analysis(volume, bleed_labels(volume, [-20.0, 5.0, 0.0], 12.0))

    result = run_batch(cases, tmp_path / "out", analyzer=analyzer)
    (pair,) = result.growth
    assert pair["hours"] == 12.0 and pair["growth_ml"] == 0.0
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            assert b"DOE-123" not in path.read_bytes(), path


def test_private_files_are_for_the_owner_alone(tmp_path):
    cases = make_cases(tmp_path / "in", 1)
    run_batch(cases, tmp_path / "out", analyzer=read_and_answer)
    for path in [tmp_path / "out" / "sources.csv", *(tmp_path / "out" / "rows").iterdir()]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_wrong_options_are_refused():
    with pytest.raises(UsageError, match="0 workers"):
        BatchOptions(workers=0)
    with pytest.raises(UsageError, match="either"):
        BatchOptions(workers=2, scheduler="tcp://x:1")


def test_the_rest_runs_here_when_all_workers_are_gone(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed", reason="the extra 'batch' is not installed")
    from contextlib import contextmanager

    cases = make_cases(tmp_path / "in", 3)

    @contextmanager
    def empty_cluster(options, workers):
        with (
            distributed.LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address=None) as cluster,
            distributed.Client(cluster, set_as_default=False) as client,
        ):
            yield client

    monkeypatch.setattr("ICHAnalysisLib.batch._client", empty_cluster)
    monkeypatch.setattr("ICHAnalysisLib.batch._CHECK_S", 0.05)
    options = BatchOptions(workers=2, worker_memory_gb=0.1)
    result = run_batch(cases, tmp_path / "out", options, analyzer=read_and_answer)
    assert result.count("ok") == 3
    assert len((tmp_path / "in" / "runs.log").read_text().split()) == 3


def test_workers_that_join_later_get_cases_too(tmp_path):
    """A cluster that starts with one worker, as on Slurm, where the others come up while the first cases run."""
    cases = make_cases(tmp_path / "in", 4)
    with one_worker_cluster() as cluster:

        def grow(done, total, row):
            if done == 1:
                cluster.scale(2)
                cluster.wait_for_workers(2, timeout=60)

        options = BatchOptions(scheduler=cluster.scheduler_address)
        result = run_batch(cases, tmp_path / "out", options, grow, analyzer=answer_where)
    assert result.count("ok") == 4
    assert len({row["message"] for row in result.rows}) == 2


def test_threads_are_limited_in_a_worker_alone():
    distributed = pytest.importorskip("distributed", reason="the extra 'batch' is not installed")
    from ICHAnalysisLib.batch_task import _is_dask_worker

    assert not _is_dask_worker()
    with (
        distributed.LocalCluster(
            n_workers=1, processes=False, protocol="tcp://", host="127.0.0.1", dashboard_address=None
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        assert client.submit(_is_dask_worker).result(timeout=60)
        assert not _is_dask_worker()


def test_a_lost_scheduler_is_said_in_a_sentence(tmp_path):
    distributed = pytest.importorskip("distributed", reason="the extra 'batch' is not installed")
    from concurrent.futures import CancelledError

    from ICHAnalysisLib.batch import _row_of
    from ICHAnalysisLib.batch_store import BatchStore

    (case,) = make_cases(tmp_path / "in", 1)
    with (
        distributed.LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address=None) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        future = client.submit(len, "abc")
        future.cancel()
        with pytest.raises(CancelledError):
            future.result()
        with pytest.raises(UsageError, match="same command"):
            _row_of(future, case, BatchStore(tmp_path / "out"), "mark", BatchOptions())


def test_archives_without_names_show_no_growth(tmp_path):
    from ICHAnalysisLib.batch_task import who_and_when

    for name, patient in (("a", "ANONYMOUS"), ("b", " 0 "), ("c", "4711")):
        write_dicom(tmp_path / name / "I1.dcm", generate_uid(), patient, "20200102", "080000")
    known = [who_and_when(Case(name, str(tmp_path / name)), "salt") for name in "abc"]
    assert known[:2] == [{}, {}] and known[2]["patient"]
