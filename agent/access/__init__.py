"""Who may use a copy that somebody else fetched."""
