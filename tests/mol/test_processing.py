import pytest
import torch

from flexreward.engines.base import Embeddings, Placed, Prompt
from flexreward.engines.encoding import Encoder, Slot
from mol.config import MolLlamaConfig
from mol.frame import SPECIAL
from tests.mol.hand import molecule

SYSTEM = {"role": "system", "content": "Be brief."}


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def test_harmless_text_is_encoded_as_the_chat_template_has_it(processor):
    talk = [
        SYSTEM,
        user("What is this?\n\nIt is <mol> here."),
        {"role": "assistant", "content": "Ethanol."},
        user("Why?"),
    ]
    rendered = processor.tokenizer.apply_chat_template(talk, tokenize=False).replace("<mol>", "<mol>" * 8)
    expected = processor.tokenizer(rendered, add_special_tokens=False)["input_ids"]
    assert processor(talk, [molecule(3)])["input_ids"][0].tolist() == expected


def test_the_engines_encode_the_same_prompt_to_the_same_ids(processor):
    encoder = Encoder(processor.tokenizer, slots={"embeddings": Slot((), processor.mol_id, ())})
    text = "Is  this\n"
    rows = Placed(len(text), Embeddings(rows_TD=torch.zeros(8, 4).numpy()))
    prompt = Prompt(system=SYSTEM["content"], user=text + " soluble?", media=(rows,), prefix="<think>")
    ours = processor([SYSTEM, user(text + "<mol> soluble?")], [molecule(3)], prefix="<think>")
    assert ours["input_ids"][0].tolist() == list(encoder.encode(prompt, [8]).ids)


def test_no_special_token_arises_from_content(processor):
    hostile = "".join(SPECIAL).replace("<mol>", "")
    inside = processor([user(hostile)])["input_ids"][0].tolist()
    plain = processor([user("x")])["input_ids"][0].tolist()
    special = processor.tokenizer.convert_tokens_to_ids(list(SPECIAL))
    assert [i for i in inside if i in special] == [i for i in plain if i in special]


@pytest.mark.parametrize("role", ["system", "assistant"])
def test_only_a_user_names_a_molecule(processor, role):
    ids = processor([{"role": role, "content": "<mol>"}, user("x")])["input_ids"]
    assert processor.mol_id not in ids


def test_a_molecule_written_out_in_all_its_queries_is_one(processor):
    once = processor([user("a <mol> b")], [molecule(3)])
    full = processor([user(f"a {'<mol>' * 8} b")], [molecule(3)])
    assert torch.equal(full["input_ids"], once["input_ids"])


def test_rows_are_padded_on_the_left_and_molecules_follow_each_other(processor):
    inputs = processor(
        [[user("<mol>")], [user("first <mol> and second <mol>")], [user("none")]],
        [[molecule(2)], [molecule(3), molecule(4)], []],
    )
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    assert (ids == processor.mol_id).sum(1).tolist() == [8, 16, 0]
    assert mask[1].all()
    assert (ids[mask == 0] == processor.pad_id).all()
    assert mask[0, 0] == 0
    assert torch.bincount(inputs["molecules"].graph_V).tolist() == [2, 3, 4]


def test_labels_are_what_the_assistant_writes(processor):
    talk = [
        SYSTEM,
        user("Hi"),
        {"role": "assistant", "content": "Yes."},
        user("Sure?"),
        {"role": "assistant", "content": "No."},
    ]
    labels = processor(talk, labels=True)["labels"][0]
    assert processor.tokenizer.decode(labels[labels != -100]) == "Yes.<|eot_id|>No.<|eot_id|>"


def test_too_few_molecules_are_named(processor):
    with pytest.raises(ValueError, match="conversation 1: 2 <mol> for 1 molecules, expected as many"):
        processor([[user("x")], [user("<mol><mol>")]], [[], [molecule(3)]])


def test_lists_and_conversations_that_do_not_pair_are_named(processor):
    with pytest.raises(ValueError, match="molecules: 1 lists for 2 conversations"):
        processor([[user("x")], [user("y")]], [[]])


def test_inputs_move_with_their_molecules(processor):
    inputs = processor([user("<mol>")], [molecule(3)]).to("meta")
    assert inputs["input_ids"].device.type == "meta"
    assert inputs["molecules"].tokens_BT.device.type == "meta"


def test_a_tokenizer_of_another_model_is_named(processor):
    with pytest.raises(ValueError, match=r"and 126 and 127 of the model; take the tokenizer in its llm/"):
        processor.check(MolLlamaConfig.tiny(vocab_size=128))
