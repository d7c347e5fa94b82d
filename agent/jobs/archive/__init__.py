"""Archives, which are unpacked into the model that they are."""
