"""The words of all other layers: values and failures, without I/O."""
