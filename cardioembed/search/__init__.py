"""Search in one's own texts: exact, or approximate with faiss, in a folder that knows its model."""
