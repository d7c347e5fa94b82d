"""What fits where: accounts of bytes, who comes in, and who goes."""
