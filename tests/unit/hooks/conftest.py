from __future__ import annotations

from hypothesis import settings

# The machine that runs the tests may be busy: pytest's own limit ends what hangs.
settings.register_profile("without-deadline", deadline=None)
settings.load_profile("without-deadline")
