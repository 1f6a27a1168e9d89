"""The contract both images share: what a trained model is on disk, and how bytes become its input."""
