"""What the core runs on: the two providers of ``IRuntime`` for users."""
