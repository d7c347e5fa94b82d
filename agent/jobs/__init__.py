"""The work that runs in threads: downloads, adoption, unpacking, and reads of copies."""
