"""SageMaker acted out on this machine: the real `train` and `serve` executables, no Docker, no AWS."""
