"""What calibration leaves on disk: folders, manifests, digests, reports."""
