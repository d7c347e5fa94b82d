"""What Secrets and ServiceAccounts of the cluster mean for a download."""
