"""Why a trained network answers as it does, and whether that is true (docs/explanations.md)."""
