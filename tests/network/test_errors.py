"""What cannot be captured says why, names the user's line and what to do; nothing else is printed."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kompakt.errors import CaptureError
from kompakt.network.capture import capture


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:  # the line
            return x
        return x * 2


class Counting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.repeat(int(x.sum()), 1)  # the line


class Leaving(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(np.tanh(x.numpy()))  # the line


class Casting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return x @ x.t()  # the line


class Conditional(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        pick = x.sum() > 0
        return torch.cond(pick, lambda x: x + 1, lambda x: x - 1, (x,))  # the line


class Failing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x @ torch.ones(7, 7)  # the line


CASES = {
    Branching: ("K101", "torch.where"),
    Counting: ("K101", "torch.where"),
    Leaving: ("K101", "torch operators"),
    Casting: ("K105", "autocast"),
    Conditional: ("K105", "control flow"),
    Failing: ("K100", "example inputs"),
}


def the_line(model: type[nn.Module]) -> int:
    lines, start = inspect.getsourcelines(model)
    return start + next(i for i, line in enumerate(lines) if "# the line" in line)


@pytest.mark.parametrize("model", CASES)
def test_the_error_names_the_line_and_the_way_out(model, capfd):
    code, advice = CASES[model]
    with pytest.raises(CaptureError) as error:
        capture(model(), torch.ones(2, 3))
    assert error.value.code == code
    assert f"{__file__}:{the_line(model)} in forward" in error.value.where
    assert advice in error.value.help
    assert model.__name__ in error.value.what
    printed = capfd.readouterr()
    assert printed.out == printed.err == ""


def test_models_that_cannot_be_copied():
    class Derived(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, 3))
            self.double = self.weight * 2

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.double

    with pytest.raises(CaptureError, match="K107"):
        capture(Derived(), torch.ones(2, 3))


@pytest.mark.filterwarnings("ignore")
def test_only_modules_with_code():
    traced = torch.jit.trace(nn.Linear(3, 3), torch.ones(2, 3))
    for thing in (traced, torch.relu, lambda x: x):
        with pytest.raises(CaptureError, match="K109"):
            capture(thing, torch.ones(2, 3))


def test_unknown_output_types():
    class Box:
        def __init__(self, x: Tensor) -> None:
            self.x = x

    class Boxing(nn.Module):
        def forward(self, x: Tensor) -> Box:
            return Box(x)

    with pytest.raises(CaptureError) as error:
        capture(Boxing(), torch.ones(2, 3))
    assert "Box" in error.value.why


def test_state_outside_the_graph_is_noticed():
    class Drifting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls = [0]

        def forward(self, x: Tensor) -> Tensor:
            self.calls[0] += 1
            return x * self.calls[0]

    with pytest.raises(CaptureError, match="K108"):
        capture(Drifting(), torch.ones(2, 3))


def test_the_model_is_usable_after_a_failure():
    model = nn.Sequential(nn.LSTM(3, 3), Branching()).train()
    with pytest.raises(CaptureError):
        capture(model, torch.ones(2, 3))
    assert model.training
    assert "forward" not in vars(model[0])


def test_networks_are_not_pickled():
    import pickle

    network = capture(nn.Linear(3, 2), torch.ones(2, 3))
    with pytest.raises(TypeError, match="state_dict"):
        pickle.dumps(network)
