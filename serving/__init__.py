"""Artifact to predictions: the HTTP server SageMaker starts with `serve`."""
