"""What is accepted of a runtime's file: the target's data and what feeds the quantizers of a network decide."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kompakt.measuring.certificate import Tolerances
from kompakt.measuring.parity import certify, tolerances_of
from kompakt.schemes import w8a8_dynamic
from kompakt.targets import Target
from kompakt.targets.target import Parity, Runnable

from ..nets import ONNXRUNTIME, deployed


def tolerances(name: str, parity: Parity) -> Tolerances:
    made = deployed(name)
    return tolerances_of(replace(ONNXRUNTIME, parity=parity), made.placed, made.rules)


def test_where_every_code_must_be_equal_nothing_is_adjusted() -> None:
    odd = Parity(step=5, share=0.5, output_error=0.7, integer_error=0.3, probe_error=0.2)
    assert tolerances("plain", odd) == Tolerances()


def test_steps_and_shares_are_the_targets_but_float_ones_not_below_the_usual() -> None:
    found = tolerances("plain", Parity(against="layers", step=2, share=0.01))
    assert (found.integer_step, found.integer_share) == (2, 0.01)
    assert (found.float_step, found.float_share) == (2, 0.01)
    found = tolerances("plain", Parity(against="layers", step=0, share=0.0))
    assert found.float_step == Tolerances.float_step
    assert found.float_share == Tolerances.float_share


@pytest.mark.parametrize(
    ("name", "expected"),
    # Normalisations and attention of the encoder run in float; all of the residual network in integers.
    [("residual", 1e-6), ("encoder", 0.03)],
)
def test_integer_networks_have_a_limit_of_their_own(name: str, expected: float) -> None:
    parity = Parity(against="outputs", output_error=0.03, integer_error=1e-6)
    found = tolerances(name, parity)
    assert found.output_error == found.probe_error == expected


@pytest.mark.parametrize("name", ["residual", "encoder"])
def test_without_such_a_limit_that_of_all_networks_holds(name: str) -> None:
    found = tolerances(name, Parity(against="outputs", output_error=0.03))
    assert found.output_error == found.probe_error == 0.03


def test_the_file_with_visible_codes_has_a_limit_of_its_own() -> None:
    parity = Parity(against="layers", output_error=1e-5, integer_error=1e-6, probe_error=0.02)
    found = tolerances("residual", parity)
    assert (found.output_error, found.probe_error) == (1e-6, 0.02)
    assert tolerances("residual", replace(parity, probe_error=0.0)).probe_error == 0.0


class Louder:
    """A session whose first output is a little larger."""

    def __init__(self, session: Runnable) -> None:
        self.session = session
        self.input_names, self.input_specs = session.input_names, session.input_specs
        self.output_names = session.output_names

    def __call__(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = self.session(inputs)
        found[self.output_names[0]] = found[self.output_names[0]] * np.float32(1.01)
        return found


def louder(parity: Parity) -> Target:
    """A runtime that fuses something only where nobody looks."""
    load = ONNXRUNTIME.load
    return replace(ONNXRUNTIME, parity=parity, load=lambda *given: Louder(load(*given)))


@pytest.mark.parametrize(("limit", "agrees"), [(0.02, True), (0.005, False), (None, False)])
def test_a_file_that_fuses_where_codes_are_hidden_is_held_to_that_limit(
    limit: float | None, agrees: bool
) -> None:
    made = deployed("plain")
    target = louder(Parity(against="layers", probe_error=limit))
    found = certify(made.placed, made.written, target, made.batches, rules=made.rules)
    assert found.probe_agrees is agrees
    # Codes are equal, yet never exact: the file they were read from is not the file that ships.
    assert found.verdict == ("within tolerance" if agrees else "failed")
    assert found.free_running_differing == 0


def test_hidden_dynamic_layers_have_the_limit_of_dynamic_ones() -> None:
    made = deployed("dense", w8a8_dynamic())
    target = replace(ONNXRUNTIME, parity=Parity(against="layers", dynamic_error=0.25))
    hidden = replace(made.written, dynamic={})
    found = certify(made.placed, hidden, target, made.batches, rules=made.rules)
    assert found.against == "outputs"
    assert found.tolerances.output_error == 0.25
