"""Credentials of downloads, from Secrets and ServiceAccounts of the cluster."""
