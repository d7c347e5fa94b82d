"""The loop, and all that it decides: observe, plan, act, report."""
