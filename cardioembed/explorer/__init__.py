"""The explorer: a run in the browser. Pages are in ``views``; everything else here knows nothing of Streamlit."""
