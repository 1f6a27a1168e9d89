"""SageMaker asked from outside: pure planners, and one executor that talks to AWS (client.py)."""
