"""Packed documents: each token predicted once, with the log-probability it has when its document stands alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from assent.data.packing import DocumentBatches
from assent.errors import ContractError
from assent.models.forward import token_logprobs
from assent.models.prepare import check_packing
from assent.types import Sequences

END = 0
SIZES = dict(vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=64)
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, intermediate_size=24)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES, intermediate_size=24, num_key_value_heads=2)),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(
            vocab_size=60, n_embd=16, n_layer=2, n_head=2, n_positions=64, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
        )
    ),
}


def batches_of(documents, **changes) -> DocumentBatches:
    settings = dict(end_id=END, length=24, batch_size=3, epochs=1, seed=0) | changes
    return DocumentBatches(documents, **settings)


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=30), min_size=1, max_size=40), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_every_token_but_the_first_of_a_piece_is_predicted_once_from_its_own_document(documents, seed):
    source = batches_of(documents, seed=seed)
    predicted: list[tuple[int, ...]] = []
    for _, batch in source:
        s = batch.sequences
        for ids, positions, mask in zip(s.token_ids_BL, s.positions(), s.mask_BT, strict=True):
            piece: list[int] = []
            for t in range(len(ids)):
                if t > 0 and not mask[t - 1]:
                    if int(positions[t]) == 0:
                        predicted.append(tuple(piece))
                        piece = [int(ids[t])]
                    continue
                piece.append(int(ids[t]))
            predicted.append(tuple(piece))
    whole = [[*d, END] for d in documents]
    wanted = [tuple(d[i : i + 24]) for d in whole for i in range(0, len(d), 24) if len(d[i : i + 24]) > 1]
    assert sorted(predicted) == sorted(wanted)


@pytest.mark.parametrize("family", MODELS)
def test_a_packed_document_has_the_log_probabilities_it_has_alone(family):
    torch.manual_seed(0)
    model = MODELS[family]()
    g = torch.Generator().manual_seed(1)
    documents = [torch.randint(1, 60, (n,), generator=g).tolist() for n in (3, 11, 7, 2, 9, 5, 20, 4)]
    alone = {}
    for d in documents:
        ids = [*d, END]
        logprobs = token_logprobs(model, Sequences.of([ids[:1]], [ids[1:]]), temperature=1.0)[0]
        alone[tuple(ids)] = logprobs
    seen = 0
    for _, batch in batches_of(documents):
        s = batch.sequences
        packed = token_logprobs(model, s, temperature=1.0)
        for row in range(len(s)):
            starts = (s.positions()[row] == 0).nonzero()[:, 0].tolist()
            ends = [*starts[1:], int(s.lengths_B[row])]
            for a, b in zip(starts, ends, strict=True):
                torch.testing.assert_close(
                    packed[row, a : b - 1], alone[tuple(s.token_ids_BL[row, a:b].tolist())], rtol=1e-4, atol=1e-5
                )
                seen += 1
    assert seen == len(documents)


def test_rows_are_nearly_full_and_the_report_counts_cuts():
    g = torch.Generator().manual_seed(2)
    documents = [[5] * int(n) for n in torch.randint(3, 20, (300,), generator=g)]
    source = batches_of(documents)
    assert source.tokens / (len(source.rows) * 24) > 0.93
    assert "none cut" in source.report
    assert "2 cuts" in batches_of([[1] * 60]).report


@pytest.mark.parametrize("family", MODELS)
def test_these_families_keep_documents_apart(family):
    check_packing(MODELS[family]())


def test_a_model_whose_attention_ignores_positions_is_refused(monkeypatch):
    model = MODELS["llama"]()
    forward = type(model.model).forward

    def blind(self, input_ids=None, position_ids=None, **rest):
        return forward(self, input_ids=input_ids, position_ids=None, **rest)

    monkeypatch.setattr(type(model.model), "forward", blind)
    with pytest.raises(ContractError, match="see each other"):
        check_packing(model)
