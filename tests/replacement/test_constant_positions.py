"""The one mask of constant positions, on tensors whose positions stand on any axis."""

import pytest
import torch

from cltdb.replacement.constant_positions import blank, from_start, with_constant


@pytest.mark.parametrize("dim", [0, 1, -2])
@pytest.mark.parametrize("n_constant", [1, 3, 9])
def test_constant_positions_are_blanked_or_filled_and_the_others_stay(dim, n_constant):
    x, constant = torch.randn(5, 6, 2), torch.randn(5, 6, 2)
    n_positions = x.shape[dim]
    blanked, filled = blank(x, n_constant, dim=dim), with_constant(x, constant, n_constant, dim=dim)
    for position in range(n_positions):
        is_constant = position < n_constant
        assert torch.equal(blanked.select(dim, position), (0 if is_constant else 1) * x.select(dim, position))
        assert torch.equal(filled.select(dim, position), (constant if is_constant else x).select(dim, position))


def test_what_stands_at_a_constant_position_is_gone_even_where_it_is_no_number():
    x = torch.tensor([torch.nan, torch.inf, 1.0], requires_grad=True)
    assert blank(x, 2).tolist() == [0, 0, 1]
    blank(x, 2).sum().backward()
    assert x.grad.tolist() == [0, 0, 1]


def test_positions_are_counted_from_either_end():
    assert [from_start(position, 7, 3) for position in (3, 6, -1, -4)] == [3, 6, 6, 3]
    assert [from_start(position, 7, 3) for position in (0, 2, 7, -5, -8)] == [None] * 5
