"""What a training did, step by step: recorded, judged by rules, and told in a report."""
