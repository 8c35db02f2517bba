"""Who may do what: API keys, tenants, roles, limits, and the audit log."""
