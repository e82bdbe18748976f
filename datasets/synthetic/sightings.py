"""Joints as a keypoint network finds them: with errors, confidences, and joints that it lacks."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class Draw:
    """Random numbers on one device, from a seed that can be set anew."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._generator = device, torch.Generator(device)

    def restart(self, seed: int) -> None:
        self._generator.manual_seed(seed)

    def uniform(self, size: int, low: float = 0.0, high: float = 1.0) -> Float[Tensor, " B"]:
        return low + (high - low) * torch.rand(size, generator=self._generator, device=self._device)

    def normal(self, *shape: int) -> Float[Tensor, "..."]:
        return torch.randn(shape, generator=self._generator, device=self._device)

    def chance(self, size: int, share: float) -> Bool[Tensor, " B"]:
        """True for such a share."""
        return self.uniform(size) < share

    def below(self, size: int, end: int) -> Tensor:
        return torch.randint(end, (size,), generator=self._generator, device=self._device)


def sightings(places, depth, inside, draw):
    B, J = places.shape[:2]
    s = 0.02 * (0.6 * draw.normal(B, 1) + 0.5 * draw.normal(B, J)).exp()
    s = torch.where(inside, s, s * 5)
    place = places + draw.normal(B, J, 2) * s[..., None] * torch.tensor([1.33, 1.0])
    d = depth + 0.12 * draw.normal(B, J)
    c = torch.exp(-s / 0.1)
    return torch.cat([place.clamp(0, 1) - 0.5, d[..., None], c[..., None]], 2)
