"""Measures with confidence intervals and chance levels, figures and the report."""
