"""Where the project is, the laptop's base, and a few sentences."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
SENTENCES = [
    "Severe aortic stenosis narrows the valve area below 1.0 cm2.",
    "Beta-blockers slow the heart rate and lower the demand for oxygen.",
    "A delta wave and a short PR interval show pre-excitation.",
    "Loop diuretics relieve congestion but do not prolong life.",
    "The left atrial appendage is the usual place of thrombus in fibrillation.",
    "Tetralogy of Fallot joins four lesions in one heart.",
]
