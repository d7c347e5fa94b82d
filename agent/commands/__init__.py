"""The commands of localmodel-agent: what each reads, starts and tells."""
