"""A check that the model's weights are finite before the first step."""

from __future__ import annotations

from typing import Any

import attrs


@attrs.frozen
class Template:
    """No weight is NaN or infinite before training."""

    area = "model"
    free = True

    def observe(self, probe: Any) -> None:
        """End the row by what is seen of the live parts."""
        module = probe.trainer.update.forward.module
        bad = [name for name, p in module.named_parameters() if not p.isfinite().all()]
        if bad:
            told = f"{len(bad)} parameters, the first '{bad[0]}', are not finite"
            probe.fails("finite weights", told, "look at how the model starts, or at its file")
        else:
            probe.passes("finite weights", "every weight is a finite number")
