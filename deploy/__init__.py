"""Everything that installs localmodel somewhere."""
