from __future__ import annotations

import pytest

# It holds asserts, and pytest takes it for no test.
pytest.register_assert_rewrite("tests.contract.suite")
