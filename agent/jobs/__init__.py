"""What runs in threads: downloads, adoption, unpacking, and reads of published copies."""
