"""What ``flexreward pairs`` wrote goes into every trainer of preferences that TRL has, as it stands."""

import os

import pytest

from tests.flexreward.test_pairs import command, load, write
from tests.training.commands import trl
from training.run import weights_digest

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
pytest.importorskip("trl", reason="needs pip install 'flexreward[train]'")
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, RewardConfig, RewardTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # TRL's own

SIMPO = {"loss_type": "simpo", "cpo_alpha": 0.0}
TRAINERS = {
    "dpo": (DPOTrainer, DPOConfig, {}),
    "cpo": (CPOTrainer, CPOConfig, {}),
    "simpo": (CPOTrainer, CPOConfig, SIMPO),
    "orpo": (ORPOTrainer, ORPOConfig, {}),
    "kto": (KTOTrainer, KTOConfig, {}),
    "reward": (RewardTrainer, RewardConfig, {}),
}


@pytest.fixture(scope="module", params=["texts", "conversations"])
def pairs(request, tmp_path_factory):
    """A folder of four pairs with columns that are carried through, one of them empty at first."""
    folder = tmp_path_factory.mktemp("pairs")
    rows = [
        {"prompt": f"p{n}", "completions": ["short", "longer" + "!" * n], "topic": n, "tags": ["x"], "note": note}
        for n, note in enumerate((None, None, "late", None))
    ]
    if request.param == "conversations":
        rows = [row | {"prompt": [{"role": "user", "content": row["prompt"]}]} for row in rows]
    told = ("--out", folder / "out", "--judge", "scripted:longer", "--no-store")
    assert command("pairs", write(folder / "s.jsonl", *rows), *told) == 0
    return folder / "out"


@pytest.mark.parametrize("name", TRAINERS)
def test_a_trainer_takes_the_folder_as_datasets_loads_it(name, pairs, checkpoint, tmp_path):
    trainer, config, more = TRAINERS[name]
    make = AutoModelForSequenceClassification if name == "reward" else AutoModelForCausalLM
    model = make.from_pretrained(checkpoint, **({"num_labels": 1} if name == "reward" else {}))
    rows = load(pairs)
    assert {"id", "score_chosen", "judge", "template", "topic"} <= set(rows.column_names)
    arguments = config(
        output_dir=str(tmp_path),
        max_steps=1,
        per_device_train_batch_size=4,
        logging_steps=1,
        use_cpu=True,
        bf16=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **more,
    )
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    trained = trainer(model=model, args=arguments, train_dataset=rows, processing_class=tokenizer)
    assert trained.train().training_loss > 0


@pytest.mark.parametrize("pairs", ["conversations"], indirect=True)
def test_trl_dpo_trains_on_the_folder_unchanged(pairs, checkpoint, tmp_path):
    done = trl("dpo", pairs, checkpoint, tmp_path / "out")
    assert done.returncode == 0, done.stderr[-2000:]
    assert weights_digest(tmp_path / "out")
