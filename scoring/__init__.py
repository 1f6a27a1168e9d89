"""Predictions and labels in, numbers and one HTML page out: the end of training and of Batch Transform."""
