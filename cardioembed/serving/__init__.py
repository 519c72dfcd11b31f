"""A model behind HTTP: embeddings in OpenAI's shape, search, health and metrics."""
