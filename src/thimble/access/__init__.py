"""Who may do what: users, tokens, sessions, failed attempts; and the certificate the host shows.

auth ─► passwords, attempts      records and sign-in        verbs    users, tokens and sessions over the API
tls ─► x509                      certificate and key of this host
"""
