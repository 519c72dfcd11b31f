"""Language models that write pairs: prompts, requests, answers on disk."""
