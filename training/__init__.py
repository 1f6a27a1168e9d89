"""Images to an artifact: `python -m training` honours SageMaker's training-container contract."""
