"""The explorer's pages, a module each."""
