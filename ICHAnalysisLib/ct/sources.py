"""Files behind a scan: what lies in a folder or a zip, and how each is opened, without writing anything anywhere."""

from __future__ import annotations

import contextlib
import io
import os
import zipfile
import zlib
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from ICHAnalysisLib.errors import InputBlockedError, UsageError
from ICHAnalysisLib.findings import Finding, Level

MAX_FILES = 20_000
MAX_MEMBER_BYTES = 2 << 30  # no slice is that large; an enhanced series of 1,000 slices is 1 GiB
MAX_ARCHIVE_BYTES = 8 << 30
MAX_DEFLATED_BYTES = 1 << 28  # of one file whose whole data set is compressed
DEFLATED = b"1.2.840.10008.1.2.1.99"
HEADER_BYTES = (64 << 10, 4 << 20)  # private elements before the image's size can be long
IMAGE_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".hdr", ".img")
DETACHED = (".mhd", ".nhdr", ".hdr", ".img")  # headers and pairs whose other half is another file
DETACHED_DATA = (".raw", ".zraw", ".raw.gz", ".gz", ".img", ".hdr", ".dat", ".bin")
_SKIP = {"__macosx", ".git", ".ds_store", "thumbs.db", "dicomdir", "dirfile"}


@lru_cache(maxsize=1)
def _archive(path: Path, _changed: int) -> zipfile.ZipFile:
    """The open zip: its directory is read once, not once a member."""
    return zipfile.ZipFile(path)


@dataclass(frozen=True)
class FileRef:
    """One file: `path` on disk, or `member` of the zip at `path`."""

    path: Path
    member: str | None = None

    @property
    def name(self) -> str:
        """The bare file name, for messages."""
        return Path(self.member).name if self.member else self.path.name

    def read(self, limit: int = MAX_MEMBER_BYTES) -> bytes:
        """At most `limit` bytes from the start."""
        if self.member is None:
            with open(self.path, "rb") as stream:
                return stream.read(limit)
        with _archive(self.path, self.path.stat().st_mtime_ns).open(self.member) as stream:
            return stream.read(limit)

    def dataset(self, stop_before_pixels: bool = False, specific_tags: list[Any] | None = None) -> Any:
        """The pydicom data set of the file."""
        import pydicom

        stream: Any = self.path
        if self.member is not None or _is_deflated(self.read(HEADER_BYTES[0])):
            content = self.read()
            _refuse_bomb(content)
            stream = io.BytesIO(content)
        return pydicom.dcmread(stream, force=True, stop_before_pixels=stop_before_pixels, specific_tags=specific_tags)

    def header(self, tags: list[Any]) -> Any:
        """The named tags, without pixels, from as little of the file as holds them.

        A file of megabytes of zeros, or a zip bomb, is given up after its first part.
        Raises: ValueError where the file begins like DICOM but says nothing.
        """
        import pydicom

        for size in HEADER_BYTES:
            head = self.read(size)
            _refuse_bomb(head)
            options: dict[str, Any] = {"force": True, "stop_before_pixels": True, "specific_tags": tags}
            dataset = None
            with contextlib.suppress(Exception):  # the part read may end inside an element
                dataset = pydicom.dcmread(io.BytesIO(head), **options)
            multi_frame = dataset is not None and int(dataset.get("NumberOfFrames") or 1) > 1
            if dataset is not None and "Rows" in dataset and not multi_frame:
                return dataset
            if dataset is not None and not any(tag.group >= 8 for tag in dataset.keys()):  # noqa: SIM118
                break  # zeros read as one empty command element
            if multi_frame or len(head) < size:
                return self.dataset(stop_before_pixels=True, specific_tags=tags)
        raise ValueError("no image header in it")


def _is_deflated(head: bytes) -> bool:
    """True where the file meta information names the deflated transfer syntax."""
    return head[128:132] == b"DICM" and DEFLATED in head[132:1024]


def _refuse_bomb(content: bytes) -> None:
    """Unpack a deflated data set once without keeping it, and give it up where it grows beyond a slice's size.

    Raises: ValueError; pydicom would unpack all of it into the memory.
    """
    if not _is_deflated(content):
        return
    start = 144 + int.from_bytes(content[140:144], "little")  # behind the group length and what it counts
    unpack, rest, total = zlib.decompressobj(-zlib.MAX_WBITS), content[start:], 0
    with contextlib.suppress(zlib.error):  # damaged: pydicom says so
        while rest and not unpack.eof:
            total += len(unpack.decompress(rest, 1 << 20))
            rest = unpack.unconsumed_tail
            if total > MAX_DEFLATED_BYTES:
                raise ValueError(f"more than {MAX_DEFLATED_BYTES >> 20} MiB unpacked")


def unpack_image(ref: FileRef, folder: Path) -> Path:
    """A zip's image file, copied into a temporary folder: (path). A detached header takes its data files along.

    Only names without folders are written, so that no member reaches another place.
    """
    suffix = image_suffix(ref.name)
    copy = folder / (Path(ref.name).name if suffix in DETACHED else f"scan{suffix}")
    copy.write_bytes(ref.read())
    if suffix in DETACHED and ref.member is not None:
        beside, left = str(Path(ref.member).parent), MAX_MEMBER_BYTES
        for info in _archive(ref.path, ref.path.stat().st_mtime_ns).infolist():
            name = Path(info.filename).name
            if str(Path(info.filename).parent) == beside and name.lower().endswith(DETACHED_DATA):
                data = folder / name
                if not data.exists() and info.file_size <= left:
                    data.write_bytes(FileRef(ref.path, info.filename).read())
                    left -= info.file_size
    return copy


@dataclass
class Listing:
    """The files of a folder or zip: DICOM candidates, image files (NIfTI, NRRD, MHA), and what was left out and why.

    archives: names of zips inside, which are not opened.
    """

    dicom: list[FileRef] = field(default_factory=list)
    images: list[FileRef] = field(default_factory=list)
    damaged: list[tuple[str, str]] = field(default_factory=list)
    archives: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def list_files(path: Path) -> Listing:
    """What `path` holds: a folder is walked, a zip is listed, a DICOMDIR stands for its folder.

    Links to folders are not followed and nothing but regular files is opened, so that loops, pipes and devices
    cannot hang the reading.
    Raises: UsageError where nothing is there, InputBlockedError for an archive that is damaged or too large.
    """
    if not path.exists():
        raise UsageError(f"{path} does not exist: give a DICOM folder or zip, a NIfTI, an NRRD or an MHA file.")
    if path.is_dir():
        return _list_folder(path)
    if not path.is_file():
        raise UsageError(f"{path} is neither a folder nor a regular file.")
    if path.stat().st_size == 0:
        raise blocked("empty_file", 30, f"{path.name} is empty (0 bytes).", "Export the scan again.")
    if path.name.upper() in ("DICOMDIR", "DIRFILE"):
        return _list_folder(path.parent)
    if image_suffix(path.name):
        return Listing(images=[FileRef(path)])
    if zipfile.is_zipfile(path) and not looks_like_dicom(FileRef(path).read(HEADER_SNIFF)):
        return _list_zip(path)
    return Listing(dicom=[FileRef(path)])


HEADER_SNIFF = 132


def blocked(code: str, hazard: int, message: str, remedy: str) -> InputBlockedError:
    """An InputBlockedError that carries its one finding."""
    return InputBlockedError(message, (Finding(code, Level.BLOCK, message, remedy, hazard),))


def image_suffix(name: str) -> str:
    """The image format's suffix of a file name, "" for none."""
    lower = name.lower()
    return next((suffix for suffix in IMAGE_SUFFIXES if lower.endswith(suffix)), "")


def looks_like_dicom(head: bytes) -> bool:
    """True for a DICOM preamble, or for a data set that starts without one (group 0002 or 0008)."""
    if head[128:132] == b"DICM":
        return True
    return head[:1] in (b"\x02", b"\x08") and head[1:2] == b"\x00" and len(head) >= 8 and head[3:4] == b"\x00"


def _list_folder(folder: Path) -> Listing:
    listing = Listing()
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name.lower() not in _SKIP)
        for name in sorted(names):
            path = Path(where, name)
            if name.lower() in _SKIP or name.startswith(".") or not path.is_file():
                continue
            _sort_in(listing, FileRef(path), path.stat().st_size)
            if len(listing.dicom) > MAX_FILES:
                raise blocked(
                    "too_many_files",
                    29,
                    f"{folder} holds more than {MAX_FILES} images.",
                    "Name the folder of one examination.",
                )
    return listing


def _list_zip(path: Path) -> Listing:
    listing = Listing()
    try:
        members = [info for info in _archive(path, path.stat().st_mtime_ns).infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        message = f"{path.name} is a damaged zip file ({error})."
        raise blocked("damaged_archive", 30, message, "Export or copy it again.") from error
    total = sum(info.file_size for info in members)
    if total > MAX_ARCHIVE_BYTES or len(members) > MAX_FILES:
        message = f"{path.name} would unpack to {total / 2**30:.1f} GiB in {len(members)} files."
        raise blocked("archive_too_large", 29, message, "Give the zip of one examination.")
    for info in members:
        parts = info.filename.lower().replace("\\", "/").split("/")
        if any(part in _SKIP or part.startswith(".") for part in parts if part not in (".", "..")):
            continue
        if info.flag_bits & 1:
            listing.damaged.append((parts[-1], "protected by a password"))
            continue
        if info.file_size > MAX_MEMBER_BYTES:
            listing.damaged.append((parts[-1], f"{info.file_size / 2**30:.1f} GiB unpacked"))
            continue
        _sort_in(listing, FileRef(path, info.filename), info.file_size)
    return listing


def _sort_in(listing: Listing, ref: FileRef, size: int) -> None:
    """Put a file among the images, the DICOM files, the damaged ones, or leave it out as something else."""
    if image_suffix(ref.name):
        names = {known.name.lower() for known in listing.images}
        if not (ref.name.lower().endswith(".img") and f"{ref.name.lower()[:-4]}.hdr" in names):  # one scan, two files
            listing.images.append(ref)
        return
    if size == 0:
        listing.damaged.append((ref.name, "empty, 0 bytes"))
        return
    try:
        head = ref.read(HEADER_SNIFF)
    except Exception as error:  # unreadable, wrong checksum, no permission: listed, never fatal
        listing.damaged.append((ref.name, str(error) or type(error).__name__))
        return
    if looks_like_dicom(head):
        listing.dicom.append(ref)
    elif head[:4] == b"PK\x03\x04" and ref.name.lower().endswith(".zip"):
        listing.archives.append(ref.name)
    elif ref.name.lower().endswith((".dcm", ".ima")):
        listing.damaged.append((ref.name, "not a DICOM file in spite of its name"))
