"""What a tier is predicted to lose on a prompt: a predictor in each file, and the registry of all."""
