"""Who is this user: hashes, the users file, the webhook."""
