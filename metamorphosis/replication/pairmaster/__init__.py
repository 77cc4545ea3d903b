"""The synchronous master: a put is acknowledged when the pair slave has stored it as well."""
