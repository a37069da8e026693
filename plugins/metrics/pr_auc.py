"""The metric pr_auc."""

from __future__ import annotations

import attrs

from framework.protocols import Info
from plugins._fitting import needed
from plugins.metrics._ranking import Curve, Ranking


@attrs.frozen
class PrAuc:
    """The area under the precision-recall curve, as average precision.

    By scikit-learn's `average_precision_score`; with more than two labels, the mean over labels
    of each against the rest.
    """

    def build(self, info: Info) -> Ranking:
        """Build it for a dataset's labels."""
        return Ranking(_curve, len(needed(info, "labels", "metric 'pr_auc'")))


def _curve() -> Curve:
    from sklearn.metrics import average_precision_score

    return average_precision_score  # type: ignore[no-any-return]
