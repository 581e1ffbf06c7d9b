"""The sampler that TRL dropped: old scripts as they were, and judges in place of their scores."""

import logging

import pytest

from flexreward.adapters.best_of_n import BestOfNSampler, LengthSampler
from flexreward.client import RewardClient
from flexreward.engines.scripted import ScriptedEngine
from flexreward.engines.scripts import script_named
from flexreward.errors import RecipeError
from flexreward.judge import Judge
from flexreward.templates import load_template
from tests.faulty_server import listening
from tests.flexreward.serving.served import service_over

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def model(checkpoint):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(checkpoint)


class Wrapped:
    """A model as TRL wrapped it: ``generate`` and little else."""

    def __init__(self, model):
        self.pretrained_model = model

    def generate(self, *args, **kwargs):
        return self.pretrained_model.generate(*args, **kwargs)


class Lengths:
    """Scores by length, and keeps what it was shown."""

    def __init__(self):
        self.shown = []

    def __call__(self, texts):
        self.shown.append(texts)
        return [float(len(text)) for text in texts]


def sampler_of(model, tokenizer, scores, **options):
    options = {"length_sampler": LengthSampler(4, 12), "seed": 3} | options
    return BestOfNSampler(model, tokenizer, scores, **options)


SAMPLED = {"do_sample": True, "top_k": 0.0, "top_p": 1.0}


def test_an_old_script_runs_as_it_was(model, tokenizer):
    from transformers import GenerationConfig

    def queries_to_scores(list_of_strings):
        return [torch.rand(1).item() for _ in list_of_strings]

    config = GenerationConfig(min_length=-1, top_k=0.0, top_p=1.0, do_sample=True, pad_token_id=tokenizer.eos_token_id)
    output_length_sampler = LengthSampler(2, 6)
    best_of_n = BestOfNSampler(
        Wrapped(model), tokenizer, queries_to_scores, length_sampler=output_length_sampler, generation_config=config
    )
    queries = [tokenizer.encode(query) for query in ("hello world", "goodbye world")]
    for given, count in (
        (queries[0], 1),
        (queries, 2),
        (torch.tensor(queries[1]), 1),
        ([torch.tensor(query) for query in queries], 2),
    ):
        results = best_of_n.generate(given)
        assert [len(texts) for texts in results] == [1] * count
        assert all(isinstance(text, str) for texts in results for text in texts)
    for sample_size, n_candidates in ((4, 2), (10, 3), (6, 4), (1, 1)):
        best_of_n = BestOfNSampler(
            model,
            tokenizer,
            queries_to_scores,
            length_sampler=output_length_sampler,
            generation_config=config,
            sample_size=sample_size,
            n_candidates=n_candidates,
        )
        assert [len(texts) for texts in best_of_n.generate(queries, device="cpu")] == [n_candidates] * 2


def test_the_best_come_first_each_with_its_query_and_the_seed_draws_them_again(model, tokenizer):
    scores = Lengths()
    query = tokenizer.encode("hello")
    (found,) = sampler_of(model, tokenizer, scores, n_candidates=3).generate(query, **SAMPLED)
    assert found == sorted(scores.shown[0], key=len, reverse=True)[:3]
    assert len(set(scores.shown[0])) > 1
    assert all(text.startswith("hello") for text in found)
    assert sampler_of(model, tokenizer, scores, n_candidates=3).generate(query, **SAMPLED) == [found]


def test_what_has_no_score_ranks_last_and_is_counted(model, tokenizer, caplog):
    kept = []

    def some(texts):
        kept.extend(texts)
        return [torch.tensor(1.0), None, float("nan"), torch.tensor(2.0)]

    sampler = sampler_of(model, tokenizer, some, n_candidates=4)
    with caplog.at_level(logging.WARNING):
        (found,) = sampler.generate(tokenizer.encode("hi"), **SAMPLED)
    assert found == [kept[i] for i in (3, 0, 1, 2)]
    assert sampler.num_unscored == 2
    assert "2 of 4 continuations of a query have no score" in caplog.text


@pytest.mark.parametrize("method", ["pointwise", "knockout", "round-robin", "listwise"])
def test_a_judge_is_told_prompt_and_completion_apart(model, tokenizer, method):
    prompts = []
    longer = script_named("scripted:longer")

    def script(prompt):
        prompts.append(prompt.user)
        return longer(prompt)

    judge = Judge(ScriptedEngine(script), load_template("pair"))
    sampler = sampler_of(model, tokenizer, judge, n_candidates=1, method=method)
    seen = Lengths()
    found = sampler.generate([tokenizer.encode("hello"), tokenizer.encode("bye")], **SAMPLED)
    assert found == sampler_of(model, tokenizer, seen).generate(
        [tokenizer.encode("hello"), tokenizer.encode("bye")], **SAMPLED
    )
    assert {text.partition("\n\n")[0] for text in prompts} == {"[Question]\nhello", "[Question]\nbye"}
    assert sampler.num_unscored == 0


async def test_a_client_judges_for_a_notebook_whose_loop_is_running(model, tokenizer):
    from flexreward.serving.app import build_app

    with listening(build_app(service_over(ScriptedEngine(script_named("scripted:longer"))))) as url:
        sampler = sampler_of(model, tokenizer, RewardClient(url), method="knockout")
        (found,) = sampler.generate(tokenizer.encode("hello"), **SAMPLED)
    seen = Lengths()
    assert [found] == sampler_of(model, tokenizer, seen).generate(tokenizer.encode("hello"), **SAMPLED)
    lost = sampler_of(model, tokenizer, RewardClient("http://127.0.0.1:9", deadline_s=0.2))
    assert len(lost.generate(tokenizer.encode("hello"), **SAMPLED)[0]) == 1
    assert lost.num_unscored == 4


def test_what_cannot_be_is_refused_in_one_line(model, tokenizer):
    for options, message in (
        ({"n_candidates": 5}, "n_candidates: 5 of sample_size 4, expected 1 to 4"),
        ({"sample_size": 0}, "n_candidates: 1 of sample_size 0"),
    ):
        with pytest.raises(RecipeError, match=message):
            sampler_of(model, tokenizer, Lengths(), **options)
    with pytest.raises(RecipeError, match="model: a str has no generate"):
        sampler_of("gpt2", tokenizer, Lengths())
    with pytest.raises(RecipeError, match="tokenizer: a str has no batch_decode"):
        sampler_of(model, "gpt2", Lengths())
    with pytest.raises(RecipeError, match="max_value: 2 is not above min_value, 2"):
        LengthSampler(2, 2)
    with pytest.raises(RecipeError, match="queries_to_scores: gave 1 scores for 4 texts"):
        sampler_of(model, tokenizer, lambda texts: [1.0]).generate(tokenizer.encode("hi"))
