"""The metric roc_auc."""

from __future__ import annotations

import attrs

from framework.protocols import Info
from plugins._fitting import needed
from plugins.metrics._ranking import Curve, Ranking


@attrs.frozen
class RocAuc:
    """The area under the ROC curve, by scikit-learn's `roc_auc_score`.

    With more than two labels, the mean over labels of each against the rest.
    """

    def build(self, info: Info) -> Ranking:
        """Build it for a dataset's labels."""
        return Ranking(_curve, len(needed(info, "labels", "metric 'roc_auc'")))


def _curve() -> Curve:
    from sklearn.metrics import roc_auc_score

    return roc_auc_score  # type: ignore[no-any-return]
