"""Types that all other layers share: values and failures, without I/O."""
