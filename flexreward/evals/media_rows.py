"""What a publisher's row says of its images, sounds and films, as ``Media``. Nothing is read and nothing decoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from flexreward.errors import SampleError
from flexreward.evals.rows import field
from flexreward.evals.source import Folder
from flexreward.files.rows import Row as FileRow
from flexreward.types import JudgeRequest, Media, Modality

FOLDERS: dict[Modality, tuple[str, ...]] = {
    "image": ("image", "images", "Images"),
    "video": ("video", "videos"),
    "audio": ("audio", "audios", "wav"),
}
"""Where publishers keep files of a kind."""


def medium(
    folder: Folder, row: FileRow, *names: str, kind: Modality = "image", under: Sequence[str] | None = None
) -> Media:
    """What the row has under the first of ``names`` that it has.

    A name is looked for below ``under`` (see ``Folder.media``), an address by its last part: nothing is fetched. A data
    set's ``{"bytes": ..., "path": ...}`` are bytes that stay undecoded.

    Raises:
        SampleError: The file is not there, or the field holds something else.
    """
    value = field(row, *names)
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes) and value:
        return Media(kind=kind, data=value)
    if not isinstance(value, str) or not value:
        expected = f"expected the name of a file, or its bytes as the hub's Parquet has them; {folder.remedy}"
        raise SampleError(f"{row.where}: {names[0]} holds no {kind}, {expected}")
    name = urlsplit(value).path.rpartition("/")[2] if "://" in value else value
    return Media(kind=kind, path=folder.media(name, under=under or FOLDERS[kind]))


def sized(request: JudgeRequest, size: tuple[int, int]) -> JudgeRequest:
    """The request with all of its images brought to one width and height when they are decoded."""

    def of(one: Media) -> Media:
        return replace(one, size=size) if one.kind == "image" else one

    completions = tuple(of(one) if isinstance(one, Media) else one for one in request.completions)
    return replace(request, media=tuple(of(one) for one in request.media), completions=completions)


class Names:
    """Ids made unique: the second row of a name is ``name#2``, in the publisher's order."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def __call__(self, name: object) -> str:
        self._seen[str(name)] += 1
        count = self._seen[str(name)]
        return str(name) if count == 1 else f"{name}#{count}"
