"""Published models are read: for their digests, and again and again for damage."""
