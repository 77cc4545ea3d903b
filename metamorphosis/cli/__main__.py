"""``python -m metamorphosis.cli``."""

from metamorphosis.cli.main import main

main()
