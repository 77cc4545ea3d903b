"""The synchronous master: a put is acknowledged when the pair slave has it as well."""
