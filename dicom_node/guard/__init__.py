"""Who is who, and who may do what: certificates, user identities, permissions."""
