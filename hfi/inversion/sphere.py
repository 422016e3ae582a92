"""Search on the sphere: a learned row keeps the length of words, and only its direction is learned (DTI).

    symbol  variable         meaning
    m       length           mean length of the vocabulary's rows; fixed
    u       directions       unit vector of each row; the row is m u
    mu      pulls            direction of the initializer
    kappa   pull             concentration of the von Mises-Fisher prior
    eta     learning_rate

    1. g <- dL/du - kappa mu                    the prior's gradient is constant
    2. g <- g - (g . u) u                       along the sphere
    3. u <- (u - eta g / |g|) / |u - eta g / |g||

Source: Directional Textual Inversion, arXiv 2512.13672 (eta .01, kappa 1e-4, 400 steps). That the step has the length
eta whatever the length of the gradient is our reading: gradients of a row are so small that eta times them would not
move it.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from hfi.parallel import average_


def sphere_step(
    directions: Float[Tensor, "rows dim"],
    gradients: Float[Tensor, "rows dim"],
    pulls: Float[Tensor, "rows dim"],
    learning_rate: float,
    pull: float,
) -> Float[Tensor, "rows dim"]:
    """The directions after one Riemannian step of length `learning_rate`; a gradient of zero moves nothing."""
    towards = gradients - pull * pulls
    along = towards - (towards * directions).sum(dim=1, keepdim=True) * directions
    return normalize(directions - learning_rate * normalize(along, dim=1), dim=1)


class SphereSearch:
    """Rows of fixed length, whose directions go down the loss."""

    def __init__(
        self, start: Float[Tensor, "rows dim"], length: Float[Tensor, ""], learning_rate: float, pull: float
    ) -> None:
        """Start from the directions of `start`, which also pull.

        Args:
            start: Rows of any length but zero.
            length: That all rows have.
            learning_rate: Angle of a step, in radians.
            pull: Strength of the pull to the start, in the gradient's unit.
        """
        self._length, self._learning_rate, self._pull = length, learning_rate, pull
        self._pulls = normalize(start, dim=1)
        self._directions = self._pulls.clone().requires_grad_()

    @property
    def rows(self) -> Float[Tensor, "rows dim"]:
        """m u; gradients reach the directions."""
        return self._length * self._directions

    def step_(self, loss: Float[Tensor, ""]) -> None:
        """One step down the loss; one that is not finite changes nothing, without a host sync."""
        (gradients,) = torch.autograd.grad(loss, self._directions)
        mean_loss = loss.detach().clone()
        average_([gradients, mean_loss])
        with torch.no_grad():
            moved = sphere_step(self._directions, gradients, self._pulls, self._learning_rate, self._pull)
            self._directions.copy_(torch.where(mean_loss.isfinite(), moved, self._directions))
