"""The connections to brokers, their requests and replies."""
