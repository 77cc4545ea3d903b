"""What a Java broker left in its journal."""
