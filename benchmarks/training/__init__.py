"""Kennel's training against torchvision's reference recipe and a loop on timm: see __main__.py."""
