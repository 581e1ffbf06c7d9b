"""GenAI-Bench: which of two generated images, edits or videos is better, or are both good, or both bad?

Source: TIGER-AI-Lab/GenAI-Bench:inference.py (Jiang et al. 2024, arXiv 2406.04485); jongwooko/flex-judge:
test/evaluate.py for the seven runs. The reported split is ``test_v1``. The benchmark of that name by Lin et al. is
another. "Overall" is the plain mean of the three headline figures.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from flexreward.errors import SampleError
from flexreward.evals.base import Benchmark, Drawn, Figures, Row, Scores, Source
from flexreward.evals.media_rows import medium
from flexreward.evals.rows import field, text_field
from flexreward.evals.source import Folder
from flexreward.evals.table import Bools, Floats, Ints, Table
from flexreward.evals.winners import TIE, winners
from flexreward.files.columns import shown
from flexreward.files.rows import Row as FileRow
from flexreward.templates import question
from flexreward.types import JudgeRequest, Media

VOTES = {"leftvote": (1.0, 0.0), "rightvote": (0.0, 1.0), "tievote": (1.0, 1.0), "bothbad_vote": (0.0, 0.0)}
LEFT, RIGHT, GOOD, BAD, EITHER, NONE = range(6)
"""What a reply says. ``EITHER`` is a tie that does not say which kind: right for both."""

EVEN = (0.5, 0.5)
LABELS = {
    "[[A>B]]": VOTES["leftvote"],
    "[[A>>B]]": VOTES["leftvote"],
    "[[B>A]]": VOTES["rightvote"],
    "[[B>>A]]": VOTES["rightvote"],
    "[[A=B=Good]]": VOTES["tievote"],
    "[[A=B=Bad]]": VOTES["bothbad_vote"],
    "[[A=B]]": EVEN,
}
BRACKETS = re.compile(r"\[\[.*\]\]")
NUM_RUNS = 7

VIDEOS = ("video_generation/videos", "videos", "video")
SIDES = (("left_video", "video_left"), ("right_video", "video_right"))


def image_rows(folder: Folder) -> Iterator[Row]:
    """The publisher gives no id: it is the row's number, from 0."""
    for row in folder.rows("image_generation/test_v1*"):
        images = medium(folder, row, "left_image"), medium(folder, row, "right_image")
        yield _row(row, text_field(row, "prompt"), images)


def edit_rows(folder: Folder) -> Iterator[Row]:
    """As ``image_rows``; the image that was edited belongs to the prompt."""
    for row in folder.rows("image_edition/test_v1*"):
        fields = {name: text_field(row, name) for name in ("source_prompt", "target_prompt", "instruct_prompt")}
        images = medium(folder, row, "left_output_image"), medium(folder, row, "right_output_image")
        yield _row(row, question("gen-edit", **fields), images, source=(medium(folder, row, "source_image"),))


def video_rows(folder: Folder) -> Iterator[Row]:
    """As ``image_rows``; the set names videos by their address, whose last part is looked for in ``videos``."""
    for row in folder.rows("video_generation/test_v1*", "data.json"):
        videos = tuple(medium(folder, row, *names, kind="video", under=VIDEOS) for names in SIDES)
        yield _row(row, text_field(row, "prompt"), videos)


def _row(row: FileRow, prompt: str, completions: tuple[Media, ...], *, source: tuple[Media, ...] = ()) -> Row:
    vote = field(row, "vote_type")
    if vote not in VOTES:
        raise SampleError(f"{row.where}: vote_type is {shown(vote)}, expected one of {', '.join(VOTES)}")
    systems = tuple(str(row.fields.get(name) or "") for name in ("left_model", "right_model"))
    return Row(
        request=JudgeRequest(id=str(row.number - 1), prompt=prompt, completions=completions, media=source),
        human=VOTES[vote],
        systems=systems if all(systems) else (),
    )


def published(table: Table) -> Figures:
    """How often one of four votes is people's: the mean over runs, and by the plurality of up to seven runs.

    ``accuracy_without_ties`` is over the rows where people prefer a side, ``accuracy`` takes the two ties for one:
    the other two figures in the literature, which cannot be set beside four-way ones.

    Quirks: what cannot be read is wrong, and may win the plurality ("none"); of several votes that are cast equally
    often the first to come wins; ``[[A=B]]``, and equal scores of a template that tells no kinds of ties apart, are
    right for both kinds; one order, the given. Flex-Judge's script takes any other text in brackets for "both bad";
    here it cannot be read.
    """
    said_N = _kinds(table.human_NC)
    kinds_NK = np.stack(
        [_kinds(table.votes_NOKC[:, 0, k]) for k in range(min(NUM_RUNS, table.votes_NOKC.shape[2]))], axis=1
    )
    voted_N = np.array([Counter(kinds).most_common(1)[0][0] for kinds in kinds_NK.tolist()], dtype=np.int64)
    sides_N = said_N <= RIGHT
    same_NK = np.where(kinds_NK >= GOOD, np.where(kinds_NK == NONE, NONE, GOOD), kinds_NK)
    return {
        "accuracy_four_way": _mean(_right(said_N[:, None], kinds_NK)),
        "accuracy_four_way_voted": _mean(_right(said_N, voted_N)),
        "accuracy_without_ties": _mean((said_N[:, None] == kinds_NK)[sides_N]),
        "accuracy": _mean(np.where(sides_N, said_N, GOOD)[:, None] == same_NK),
    }


def _kinds(scores_NC: Floats) -> Ints:
    choice_N = winners(scores_NC)
    tie_N = np.where(scores_NC[:, 0] == 1, GOOD, np.where(scores_NC[:, 0] == 0, BAD, EITHER))
    return np.where(choice_N == TIE, tie_N, np.where(choice_N < 0, NONE, choice_N)).astype(np.int64)


def _right(said: Ints, kinds: Ints) -> Bools:
    return np.asarray((said == kinds) | ((kinds == EITHER) & (said >= GOOD)))


def _mean(right: Bools) -> float:
    return float(right.mean()) if right.size else float("nan")


def read(reply: str, count: int) -> Scores | None:
    """From the first ``[[`` to the last ``]]`` of its line, greedily: two labels on one line are none."""
    found = BRACKETS.search(reply)
    return LABELS.get(found[0]) if found else None


GENAI_IMAGE = Benchmark(
    name="genai-image",
    title="GenAI-Bench, image generation",
    task="pair",
    template="gen-image",
    source=Source(
        files=("image_generation/test_v1-*.parquet",),
        hub="TIGER-Lab/GenAI-Bench",
        num_rows=1735,
        licence="CC BY 4.0",
        remedy="copy image_generation/ of https://huggingface.co/datasets/TIGER-Lab/GenAI-Bench there",
    ),
    rows=image_rows,
    drawn=Drawn(samples=NUM_RUNS, temperature=0.6, top_p=0.95, image_size=(448, 448)),
    published=published,
    quirks=(
        "four-way: a tie of the other kind is wrong, but [[A=B]] is right for both",
        "a reply that cannot be read is wrong, and may win the plurality of seven",
        "of votes cast equally often the first to come wins",
        "every image is brought to 448 x 448 pixels, whatever its shape (here by --protocol published alone)",
    ),
    headline="accuracy_four_way",
    read=read,
    key="row from 0",
)

GENAI_EDIT = replace(
    GENAI_IMAGE,
    name="genai-edit",
    title="GenAI-Bench, image editing",
    template="gen-edit",
    source=replace(
        GENAI_IMAGE.source,
        files=("image_edition/test_v1-*.parquet",),
        num_rows=919,
        remedy="copy image_edition/ of https://huggingface.co/datasets/TIGER-Lab/GenAI-Bench there",
    ),
    rows=edit_rows,
)

GENAI_VIDEO = replace(
    GENAI_IMAGE,
    name="genai-video",
    title="GenAI-Bench, video generation",
    template="gen-video",
    source=Source(
        files=("video_generation/test_v1*", "data.json"),
        num_rows=1069,
        licence="CC BY 4.0",
        remedy="copy video_generation/ of https://huggingface.co/datasets/TIGER-Lab/GenAI-Bench there, and the videos "
        "that it names by address into videos/",
    ),
    rows=video_rows,
    drawn=replace(GENAI_IMAGE.drawn, image_size=None),
    quirks=(
        *GENAI_IMAGE.quirks[:-1],
        "frames are shown at one a second, 224 * 224 pixels at most (see flexreward.media.limits.FilmCaps)",
    ),
)
