"""What the compatibility runs share: servers, a bare RESP client, packages, the matrix and its table."""
