"""PyTorch's CPU build beside PyPI's torchvision, which is built for another one: its Python part works all the same
once the two operators that it registers exist. For tests alone, on PYTHONPATH, where vLLM's processes find it as they
begin."""

import importlib.abc
import sys


class Operators(importlib.abc.MetaPathFinder):
    """Declares them just before torchvision is imported, and finds nothing itself."""

    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            # This module may be loaded again, under another name; and torch forgets what nobody holds.
            if not torch.version.cuda and not hasattr(torch.library, "of_torchvision"):
                torch.library.of_torchvision = torch.library.Library("torchvision", "FRAGMENT")
                for operator in ("nms", "qnms"):
                    definition = f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                    torch.library.of_torchvision.define(definition)


sys.meta_path.insert(0, Operators())
