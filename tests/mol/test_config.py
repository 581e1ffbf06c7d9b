import pytest

from mol.config import BlendingConfig, MolLlamaConfig


@pytest.mark.parametrize("config", [MolLlamaConfig(), MolLlamaConfig.tiny(), MolLlamaConfig.tiny(lora=False)])
def test_a_config_is_the_same_after_its_folder(config, tmp_path):
    config.save_pretrained(tmp_path)
    assert MolLlamaConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


def test_the_defaults_are_those_of_the_published_weights():
    config = MolLlamaConfig()
    assert config.silenced == (128256, 128257)
    assert config.llm.vocab_size == 128258
    assert config.num_queries == 8
    assert config.lora.scale == 4


def test_parts_that_do_not_fit_together_are_named():
    with pytest.raises(ValueError, match=r"encoder_hidden_size is 512, expected the 256 of blending\.hidden_size"):
        MolLlamaConfig(blending=BlendingConfig(hidden_size=256))


def test_a_token_outside_the_vocabulary_is_named():
    with pytest.raises(ValueError, match="mol_token_id is 128258, expected one of the 128258"):
        MolLlamaConfig(mol_token_id=128258)


def test_trainers_and_caches_find_the_sizes_of_the_llama():
    assert MolLlamaConfig.tiny().get_text_config().num_hidden_layers == 2
