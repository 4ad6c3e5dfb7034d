"""The card itself finds what it is there to find."""

import pytest
import torch
from torch import nn

from tests.device.card import Apart, card, plugged_in


def test_what_is_made_without_a_device_is_found_when_it_meets_the_card():
    with plugged_in():
        x = torch.ones(3, device=card())
        for made in (torch.zeros(3), torch.arange(3), torch.full((3,), 2.0), torch.tensor([1.0, 2.0, 3.0])):
            with pytest.raises(Apart):
                x + made
        with pytest.raises(Apart):
            x[torch.tensor([0, 1])]
        with pytest.raises(Apart):
            torch.where(torch.ones(3, dtype=torch.bool), x, 0.0)
        with pytest.raises(Apart):
            torch.cat([x, torch.zeros(1)])
        with pytest.raises(Apart):
            torch.zeros(3)[x.long()]


def test_numbers_may_meet_it_and_what_is_made_with_its_device_lives_there():
    with plugged_in():
        x = torch.arange(4, device=card())
        assert (x * torch.tensor(2.0)).tolist() == [0.0, 2.0, 4.0, 6.0]
        number = torch.tensor([1.0] * 4).to(x)
        for made in (torch.zeros(4, device=x.device), torch.zeros_like(x), x.new_ones(4), number):
            assert made.device == card() and (made + x).device == card()
        assert (x > 1).sum().item() == 2 and x.cpu().device.type == "cpu" and x.tolist() == [0, 1, 2, 3]


def test_gradients_and_optimisers_work_as_on_the_cpu():
    def trained(device: torch.device) -> list[float]:
        torch.manual_seed(0)
        layer, out = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
        out.weight = layer.weight
        model = nn.Sequential(layer, out).to(device)
        assert model[0].weight is model[1].weight
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.tensor([0, 3], device=device)).logsumexp(-1).sum().backward()
            optimizer.step()
        return out.weight.detach().cpu().flatten().tolist()

    expected = trained(torch.device("cpu"))
    with plugged_in() as mode:
        assert trained(card()) == expected
        assert mode.moves["in"] > 0
