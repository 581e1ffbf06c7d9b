"""What both encoders have in common: they are read, and never trained."""

from __future__ import annotations

from typing import Self

from torch import nn


class Frozen(nn.Module):
    """A module without gradients that stays in evaluation mode, whatever is asked of the model around it."""

    def train(self, mode: bool = True) -> Self:
        """Evaluation mode. BatchNorm would otherwise overwrite its running statistics, in silence."""
        return super().train(False)

    def freeze(self) -> None:
        """Call once all parameters are there."""
        self.requires_grad_(False)
        self.eval()
