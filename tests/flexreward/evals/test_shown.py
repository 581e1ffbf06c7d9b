import pytest

from flexreward.errors import SampleError
from flexreward.evals.base import Row
from flexreward.evals.shown import shown
from flexreward.types import JudgeRequest, Media, Message

PNG = b"\x89PNG\r\n\x1a\n rest"
WAV = b"RIFF\x00\x00\x00\x00WAVEfmt "


def row(*, prompt="Which?", completions=("a", "b"), media=()) -> Row:
    request = JudgeRequest(id="r", prompt=prompt, completions=completions, media=media)
    return Row(request=request, human=(1.0, 0.0), group="g")


def test_texts_and_conversations_are_shown_as_they_are(tmp_path):
    turns = (Message(role="user", content="hi"), Message(role="assistant", content="yes?"))
    found = shown(row(prompt=turns), tmp_path / "media")
    assert found == {
        **{"id": "r", "completions": ["a", "b"], "human": [1.0, 0.0], "group": "g"},
        **{"images": None, "videos": None, "audios": None},
        "prompt": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"}],
    }
    assert not (tmp_path / "media").exists()


def test_a_prompts_image_comes_before_those_that_are_completions(tmp_path):
    source = tmp_path / "source.JPG"
    source.write_bytes(b"\xff\xd8\xff source")
    first, second = Media(kind="image", data=PNG), Media(kind="image", data=PNG + b"2")
    found = shown(
        row(completions=(first, second), media=(Media(kind="image", path=source),)), tmp_path / "run" / "media"
    )
    assert found["completions"] == [None, None]
    contents = [(tmp_path / "run" / "media" / name).read_bytes() for name in found["images"]]
    assert contents == [b"\xff\xd8\xff source", PNG, PNG + b"2"]
    assert [name.rpartition(".")[2] for name in found["images"]] == ["jpg", "png", "png"]


def test_the_same_medium_is_put_there_once(tmp_path):
    names = [
        shown(row(completions=("a", "b"), media=(Media(kind="audio", data=WAV),)), tmp_path)["audios"] for _ in range(3)
    ]
    assert names[0] == names[1] == names[2]
    assert [path.name for path in tmp_path.iterdir()] == names[0]
    assert names[0][0].endswith(".wav")


def test_a_file_is_linked_where_the_disk_allows(tmp_path):
    source = tmp_path / "film.mp4"
    source.write_bytes(b"0000ftyp")
    (name,) = shown(row(media=(Media(kind="video", path=source),)), tmp_path / "media")["videos"]
    assert (tmp_path / "media" / name).samefile(source)


def test_a_missing_file_is_one_line(tmp_path):
    gone = Media(kind="image", path=tmp_path / "gone.png")
    with pytest.raises(SampleError, match=r"gone\.png: cannot be read: No such file or directory; put the image back"):
        shown(row(media=(gone,)), tmp_path / "media")
