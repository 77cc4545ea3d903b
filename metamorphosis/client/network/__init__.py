"""The connections to brokers, and what comes and goes on them."""
