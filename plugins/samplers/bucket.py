"""Records of about one length together."""

from __future__ import annotations

import attrs

from plugins.samplers._bucketed import LiveBucketed


@attrs.frozen
class Bucket:
    """Steps of records of about one length, so that little is padded; the order stays random.

    Shuffled records are sorted by length inside windows of 16 steps, whose steps are shuffled.
    """

    def build(self) -> LiveBucketed:
        """Build it."""
        return LiveBucketed()
