import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from propulsion.analysis.ntk import jacobian
from propulsion.analysis.samples import Sample
from propulsion.analysis.scalar_output import (
    Probe,
    Task,
    causal_lm_probes,
    classification_probes,
    scalar_output,
)
from tests.propulsion.analysis.models import llama

SAMPLES = [Sample(1, (5, 9, 300, 17)), Sample(2, (7, 8)), Sample(3, (4, 40, 400, 4000, 40, 4, 1))]


def padded(probes: list[Probe]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask of all samples in one batch, padded on the right."""
    longest = max(probe.token_ids.shape[1] for probe in probes)
    token_ids = torch.zeros(len(probes), longest, dtype=torch.int64)
    mask = torch.zeros_like(token_ids)
    for row, probe in enumerate(probes):
        length = probe.token_ids.shape[1]
        token_ids[row, :length] = probe.token_ids
        mask[row, :length] = 1
    return token_ids, mask


def test_a_causal_lm_is_asked_for_the_last_token_after_the_others() -> None:
    probes = causal_lm_probes(SAMPLES)
    assert [probe.token_ids.tolist() for probe in probes] == [
        [[5, 9, 300]],
        [[7]],
        [[4, 40, 400, 4000, 40, 4]],
    ]
    assert [probe.target for probe in probes] == [17, 8, 1]


def test_log_odds_are_those_of_the_probability_of_the_last_token() -> None:
    model = llama()
    for sample, probe in zip(SAMPLES, causal_lm_probes(SAMPLES), strict=True):
        whole = model(torch.tensor([sample.token_ids])).logits[0]
        probability = whole.double().softmax(dim=-1)[-2, sample.token_ids[-1]]
        found = scalar_output(model, Task.CAUSAL_LM)({}, probe)
        assert found.shape == ()
        torch.testing.assert_close(
            found.double(), (probability / (1 - probability)).log(), rtol=1e-4, atol=1e-4
        )


def test_log_odds_keep_their_gradient_where_the_model_is_sure() -> None:
    model = llama(tied=False)
    probe = Probe(torch.tensor([[5, 6]]), 9)
    with torch.no_grad():
        state = model.model(probe.token_ids).last_hidden_state[0, -1]
        model.lm_head.weight[9] = 50.0 * state
    at = {"lm_head.weight": model.lm_head.weight.detach()}
    found = jacobian(scalar_output(model, Task.CAUSAL_LM), at, [probe])
    logits = model(probe.token_ids).logits[0, -1]
    assert logits.softmax(dim=0)[9] == 1.0
    gradient = found.rows.view_as(at["lm_head.weight"])
    torch.testing.assert_close(gradient[9], state, rtol=1e-4, atol=1e-4)


def test_a_sample_alone_is_as_in_a_padded_batch() -> None:
    model = llama()
    probes = causal_lm_probes(SAMPLES)
    at = {name: parameter.detach() for name, parameter in model.named_parameters()}
    found = jacobian(scalar_output(model, Task.CAUSAL_LM), at, probes)
    token_ids, mask = padded(probes)
    logits = model(token_ids, attention_mask=mask).logits
    for row, probe in enumerate(probes):
        model.zero_grad()
        chances = logits[row, probe.token_ids.shape[1] - 1].softmax(dim=0)
        odds = (chances[probe.target] / (1 - chances[probe.target])).log()
        odds.backward(retain_graph=True)
        expected = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
        torch.testing.assert_close(found.outputs[row], odds.detach(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found.rows[row], expected, rtol=1e-3, atol=1e-4)


def bert() -> BertForSequenceClassification:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=4096,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        num_labels=4,
        initializer_range=0.5,
    )
    return BertForSequenceClassification(config).eval()


@pytest.mark.parametrize("architecture", ["llama", "bert"])
def test_a_classifier_gives_the_logit_of_its_predicted_class(architecture: str) -> None:
    model = bert() if architecture == "bert" else llama(classes=4)
    probes = classification_probes(model, {}, SAMPLES)
    assert len({probe.target for probe in probes}) > 1
    function = scalar_output(model, Task.CLASSIFICATION)
    token_ids, mask = padded(probes)
    logits = model(token_ids, attention_mask=mask).logits
    assert [probe.target for probe in probes] == logits.argmax(dim=1).tolist()
    for sample, probe, row in zip(SAMPLES, probes, logits, strict=True):
        assert probe.token_ids.tolist() == [list(sample.token_ids)]
        torch.testing.assert_close(function({}, probe), row.max(), rtol=1e-4, atol=1e-5)


def test_the_class_is_that_of_the_base_whatever_the_parameters_given_later() -> None:
    model = llama(classes=4)
    probe = classification_probes(model, {}, SAMPLES)[0]
    flipped = {"score.weight": -model.score.weight.detach()}
    function = scalar_output(model, Task.CLASSIFICATION)
    torch.testing.assert_close(function(flipped, probe), -function({}, probe))
    assert classification_probes(model, flipped, SAMPLES)[0].target != probe.target
