import itertools
import json
from pathlib import Path

import pytest

from flexreward.errors import RecipeError, SampleError
from flexreward.files.columns import parse_map
from flexreward.files.rows import is_local
from flexreward.files.samples import Sample, parse_shard, read_samples
from flexreward.types import Message

DATA = Path(__file__).parents[2].parent / "shared" / "data"
GOOD = {"prompt": "2 + 2?", "completions": ["4", "5"]}
PANDALM = (
    "id=idx",
    "prompt=(Instruction:) {instruction} (Input:) {input}",
    "completions=response1,response2",
)


def write(path: Path, *rows: object) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def read(source: str, *maps: str, **options: object) -> list[Sample]:
    return list(read_samples(source, mapping=parse_map(maps), **options))


def refused(source: str, *maps: str, **options: object) -> str:
    with pytest.raises(SampleError) as error:
        read(source, *maps, **options)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_row_becomes_a_sample_and_its_other_columns_are_carried_through(tmp_path):
    source = write(tmp_path / "s.jsonl", GOOD | {"id": 7, "reference": "4", "truth": [True, False], "topic": "sums"})
    (sample,) = read(source)
    assert (sample.id, sample.prompt, sample.completions) == ("7", "2 + 2?", ("4", "5"))
    assert sample.reference == "4"
    assert sample.extra == {"truth": [True, False], "topic": "sums"}
    assert sample.request().completions == ("4", "5")


def test_rows_of_a_url_are_those_of_the_file_and_what_cannot_be_opened_is_said(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = write(tmp_path / "s.jsonl", *(GOOD | {"id": f"q{i}"} for i in range(3)))
    pq.write_table(pa.Table.from_pylist([GOOD | {"id": f"q{i}"} for i in range(3)]), tmp_path / "s.parquet")
    assert [sample.id for sample in read(f"file://{source}")] == ["q0", "q1", "q2"]
    assert [sample.id for sample in read(f"file://{tmp_path}/s.parquet")] == ["q0", "q1", "q2"]
    assert read(f"file://{source}")[1].where == f"file://{source}: line 2"
    assert refused(f"file://{tmp_path}/absent.jsonl").startswith(f"file://{tmp_path}/absent.jsonl: cannot be opened (")
    assert refused("nowhere://s.jsonl").startswith("nowhere://s.jsonl: cannot be opened (Protocol not known: nowhere")


def test_rows_without_an_id_are_named_by_their_number_blank_lines_left_out(tmp_path):
    source = write(tmp_path / "s.jsonl", GOOD, "", GOOD)
    assert [sample.id for sample in read(source)] == ["row-000001", "row-000002"]


def test_the_same_rows_come_out_of_jsonl_a_json_array_parquet_and_a_saved_data_set(tmp_path):
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [GOOD | {"id": f"q{i}", "topic": "é" * i} for i in range(200)]
    lines = write(tmp_path / "s.jsonl", *rows)
    (tmp_path / "array.json").write_text("\n " + json.dumps(rows, indent=2, ensure_ascii=False))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "s.parquet")
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    datasets.DatasetDict(
        {"a": datasets.Dataset.from_list(rows), "b": datasets.Dataset.from_list(rows[:1])}
    ).save_to_disk(tmp_path / "splits")
    want = [(s.id, s.prompt, s.completions, s.extra) for s in read(lines)]
    for name in ("array.json", "s.parquet", "saved", "splits:a"):
        source = str(tmp_path / name)
        assert [(s.id, s.prompt, s.completions, s.extra) for s in read(source)] == want, name
        assert is_local(source)
    assert "holds the splits a, b; name one" in refused(str(tmp_path / "splits"))
    assert "has no split 'c'" in refused(str(tmp_path / "splits:c"))


def test_an_array_larger_than_the_window_is_read_element_by_element(tmp_path):
    rows = [GOOD | {"id": i, "note": "x" * 90_000} for i in range(8)]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    assert [sample.id for sample in read(str(tmp_path / "a.json"))] == [str(i) for i in range(8)]
    assert "longer than 0.0625 MiB" in refused(str(tmp_path / "a.json"), max_row_bytes=2**16)


def test_messages_stay_messages(tmp_path):
    prompt = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    completion = [{"role": "assistant", "content": "Hello", "tool_calls": None}]
    (sample,) = read(write(tmp_path / "s.jsonl", {"prompt": prompt, "completions": [completion]}))
    assert sample.prompt == (Message(role="system", content="Be brief."), Message(role="user", content="Hi"))
    assert sample.completions == ((Message(role="assistant", content="Hello"),),)


def test_columns_are_mapped_by_name_by_list_and_by_format_string(tmp_path):
    row = {"q": "Why", "ctx": 3, "a": "x", "b": "y", "name": "n", "scores": [1]}
    source = write(tmp_path / "s.jsonl", row)
    (sample,) = read(source, "prompt={q}? {{{ctx}}}", "completions=a,b", "id=name", "my_scores=scores")
    assert (sample.prompt, sample.completions, sample.id) == ("Why? {3}", ("x", "y"), "n")
    assert sample.extra == {"my_scores": [1]}
    (single,) = read(source, "prompt=q", "completions=a", "scores=")
    assert single.completions == ("x",)
    assert single.extra == {"ctx": 3, "b": "y", "name": "n"}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("prompt={x.__class__}", "{x.__class__} is not the plain name of a column"),
        ("prompt={x[0]}", "{x[0]} is not the plain name"),
        ("prompt={x!r}", "{x} is not the plain name"),
        ("prompt={x:>99999999}", "{x} is not the plain name"),
        ("prompt={}", "{} is not the plain name"),
        ("prompt={x", "expected '}' before end of string"),
        ("prompt={{x}}", "names no column"),
        ("prompt", "expected FIELD=COLUMN"),
        ("prompt=a,b", "only completions takes several columns"),
    ],
)
def test_a_mapping_that_cannot_be_meant_is_refused(spec, message):
    with pytest.raises(RecipeError) as error:
        parse_map([spec])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_number_in_a_mapped_column_is_text_as_json_writes_it(tmp_path):
    source = write(tmp_path / "s.jsonl", {"q": 3, "a": True, "b": 2.5})
    (sample,) = read(source, "prompt=q", "completions=a,b", "id=q")
    assert (sample.id, sample.prompt, sample.completions) == ("3", "3", ("true", "2.5"))
    assert "completions[0] is null" in refused(
        write(tmp_path / "n.jsonl", {"q": "x", "a": None}), "prompt=q", "completions=a"
    )


BAD_LINES = {
    '{"prompt": "x", "completions": ["a"': "broken JSON (Expecting ',' delimiter, column",
    "not json": "broken JSON",
    '["prompt"]': "a row must be a JSON object",
    '{"prompt": "x", "completions": [NaN]}': "NaN is no JSON number",
    '{"prompt": "x", "completions": ["a"], "w": Infinity}': "Infinity is no JSON number",
    '{"prompt": "x", "completions": ["a"], "w": 1e999}': "1e999 is no JSON number",
    '{"prompt": "x", "prompt": "y", "completions": ["a"]}': "the key 'prompt' stands twice",
    '{"question": "x", "completions": ["a"]}': "the row has question, completions; --map prompt=COLUMN",
    '{"prompt": "x", "answer": "a"}': "no column 'completions'; the row has prompt, answer; --map completions=COLUMN",
    '{"prompt": 3.5, "completions": ["a"]}': "prompt is a number (3.5), expected text",
    '{"prompt": null, "completions": ["a"]}': "prompt is null, expected text",
    '{"prompt": true, "completions": ["a"]}': "prompt is true or false (True), expected text",
    '{"prompt": "", "completions": ["a"]}': "prompt is empty; there is nothing to judge by",
    '{"prompt": "x", "completions": []}': "completions is an empty list",
    '{"prompt": "x", "completions": "a"}': "completions is text ('a'), expected a list",
    '{"prompt": "x", "completions": ["a", 3]}': "completions[1] is a number (3), expected text",
    '{"prompt": "x", "completions": ["a", null]}': "completions[1] is null, expected text",
    '{"prompt": "x", "completions": ["a", ""]}': "completions[1] is empty; leave it out, or run without --refuse-empty",
    '{"prompt": "x", "completions": [{"role": "assistant"}]}': "completions[0] is an object",
    '{"prompt": [{"role": "bot", "content": "x"}], "completions": ["a"]}': "prompt[0].role is 'bot', expected one of",
    '{"prompt": [{"role": "user", "content": null}], "completions": ["a"]}': "prompt[0].content is null",
    '{"prompt": [{"role": "user", "content": [{"type": "image"}]}], "completions": ["a"]}': "takes the next of the column images, which has no more",  # noqa: E501
    '{"prompt": "x", "completions": [[{"role": "assistant", "content": "", "tool_calls": [1]}]]}': "has 'tool_calls'",
    '{"prompt": "x\\ud800", "completions": ["a"]}': "prompt holds half a character",
    '{"prompt": "x", "completions": ["a"], "rubric": 3}': "rubric is a number (3), expected text",
    '{"prompt": "x", "completions": ["a"], "id": 1.5}': "id is 1.5, expected text or a whole number",
    '{"prompt": "x", "completions": ["a"], "id": "row-000003"}': "the id 'row-000003' stands in an earlier row too",
    '{"prompt": "x", "completions": ["a"], "images": ["none.png"]}': "none.png: No such file or directory; paths begin at ",  # noqa: E501
    '{"prompt": "x", "completions": ["a"], "scores": 3}': "--map my_scores=scores, or leave it out with --map scores=",
    '{"prompt": "x", "completions": ["a"], "k": "\\udfff"}': "the column 'k' is NaN or no Unicode",
    '{"prompt": "x", "completions": ["a"], "k": ' + "[" * 100_000 + "}": "nested too deeply",
}


@pytest.mark.parametrize("line", BAD_LINES, ids=range(len(BAD_LINES)))
def test_a_bad_line_17_is_named_with_its_remedy_after_sixteen_good_ones(tmp_path, line):
    source = write(tmp_path / "s.jsonl", *[GOOD] * 16, line, GOOD)
    samples = read_samples(source, reserved={"scores"}, refuse_empty=True)
    assert len(list(itertools.islice(samples, 16))) == 16
    with pytest.raises(SampleError) as error:
        next(samples)
    assert str(error.value).startswith(f"{source}: line 17: ")
    assert BAD_LINES[line] in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("line", [line for line in BAD_LINES if line.startswith("{")], ids=itertools.count())
def test_the_same_row_in_an_array_is_named_with_its_line(tmp_path, line):
    rows = [json.dumps(GOOD)] * 16
    (tmp_path / "a.json").write_text("[\n" + ",\n".join([*rows, line, *rows]) + "\n]\n")
    message = refused(str(tmp_path / "a.json"), reserved={"scores"}, refuse_empty=True)
    # A bracket that is missing on one line may be seen much later.
    assert ": line 18: " in message or "in the row that begins on line 18" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no rows"),
        ("\n\n", "holds no rows"),
        ("[]", "holds no rows"),
        ('[{"a": 1} {"a": 2}]', "line 1: no column 'prompt'"),
        ('[{"prompt": "x", "completions": ["a"]} {}]', "line 1: broken JSON (expected ',' or ']', found '{')"),
        ('[{"prompt": "x", "completions": ["a"]},', "line 1: broken JSON (expected an object, the file ends)"),
        ('[{"prompt": "x", "completions": ["a"]}\n', "line 2: broken JSON (expected ',' or ']', the file ends"),
        ('[{"prompt": "x", "completions": ["a"]}]\n{}', "line 2: '{' after the array's end"),
        ("[1, 2]", "line 1: broken JSON (expected an object, found '1')"),
    ],
)
def test_a_file_that_is_no_list_of_rows_is_refused(tmp_path, text, message):
    (tmp_path / "s").write_text(text)
    assert message in refused(str(tmp_path / "s"))


def test_a_byte_order_mark_and_windows_line_ends_are_read_and_other_encodings_are_refused(tmp_path):
    line = json.dumps(GOOD)
    (tmp_path / "bom.jsonl").write_bytes(b"\xef\xbb\xbf" + f"{line}\r\n{line}\r\n".encode())
    (tmp_path / "bom.json").write_bytes(b"\xef\xbb\xbf" + f"[{line}]".encode())
    (tmp_path / "latin.jsonl").write_bytes(f"{line}\n".encode() + line.replace("2 +", "é").encode("latin-1") + b"\n")
    (tmp_path / "latin.json").write_bytes(f"[{line},\n".encode() + line.replace("2 +", "é").encode("latin-1") + b"]")
    (tmp_path / "utf16.jsonl").write_bytes(line.encode("utf-16"))
    assert len(read(str(tmp_path / "bom.jsonl"))) == 2
    assert len(read(str(tmp_path / "bom.json"))) == 1
    assert "line 2: broken" in refused(write(tmp_path / "u.jsonl", line, "\ufeff" + line))
    assert "latin.jsonl: line 2: not UTF-8 at byte" in refused(str(tmp_path / "latin.jsonl"))
    assert "latin.json: line 2: not UTF-8" in refused(str(tmp_path / "latin.json"))
    assert "utf16.jsonl: line 1: not UTF-8" in refused(str(tmp_path / "utf16.jsonl"))


def test_a_200_mb_line_is_refused_without_being_read(tmp_path):
    import tracemalloc

    source = write(tmp_path / "s.jsonl", GOOD)
    with open(source, "r+b") as file:
        file.truncate(200 * 2**20)
    tracemalloc.start()
    message = refused(source)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (
        message == f"{source}: line 2: longer than 16 MiB; is a line break missing? (--max-row-mib N raises the limit)"
    )
    assert peak < 64 * 2**20


def test_an_empty_completion_is_a_text_like_any_other(tmp_path):
    (sample,) = read(write(tmp_path / "s.jsonl", {"prompt": "x", "completions": ["", "a"]}))
    assert sample.completions == ("", "a")


def test_what_is_not_there_or_not_a_data_set_is_said_in_one_line(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "s.jsonl.gz").write_bytes(b"\x1f\x8b and so on")
    assert not is_local(str(tmp_path / "nothing.jsonl"))
    assert "no such file" in refused(str(tmp_path / "nothing.jsonl"))
    assert "not one made by save_to_disk" in refused(str(tmp_path / "folder"))
    assert "not a whole Parquet file" in refused(str(tmp_path / "cut.parquet"))
    assert "unpack it first" in refused(str(tmp_path / "s.jsonl.gz"))


def test_nan_and_dates_in_parquet_name_their_column(tmp_path):
    import datetime

    import pyarrow as pa
    import pyarrow.parquet as pq

    for name, value in {"weight": float("nan"), "day": datetime.date(2026, 1, 1)}.items():
        pq.write_table(pa.Table.from_pylist([GOOD, GOOD | {name: value}][1:]), tmp_path / "s.parquet")
        source = str(tmp_path / "s.parquet")
        assert f"row 1: the column {name!r} is" in refused(source)
        assert len(read(source, f"{name}=")) == 1


def test_shards_share_out_the_rows_and_keep_the_ids_of_the_whole_file(tmp_path):
    source = write(tmp_path / "s.jsonl", *[GOOD] * 10)
    shards = [[s.id for s in read(source, shard=parse_shard(f"{i}/3"), limit=8)] for i in (1, 2, 3)]
    assert shards[0] == ["row-000001", "row-000004", "row-000007"]
    assert sorted(itertools.chain(*shards)) == [f"row-{i:06d}" for i in range(1, 9)]
    for text in ("0/3", "4/3", "1", "a/b", "-1/2"):
        with pytest.raises(RecipeError, match="expected i/n"):
            parse_shard(text)


@pytest.mark.skipif(not DATA.exists(), reason="the real data lies beside the repository only where it was copied")
def test_999_human_voted_pairs_are_read():
    samples = read(str(DATA / "pandalm" / "testset-v1.json"), *PANDALM)
    assert len(samples) == 999
    assert samples[0].prompt.startswith("(Instruction:) The sentence you are given")
    assert samples[157].completions[0] == "true"
    assert sum("" in sample.completions for sample in samples) == 54
    assert all(len(sample.completions) == 2 and "annotator1" in sample.extra for sample in samples)
