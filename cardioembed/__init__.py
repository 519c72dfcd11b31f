"""CardioEmbed: from a shelf of textbooks to a measured text-embedding model for clinical cardiology."""

__version__ = "0.1.0"
