"""Decides which downloads fit on the disk and in their groups' limits, and which copies go."""
