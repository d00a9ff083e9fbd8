"""What the services that speak HTTP have in common."""
