"""Pure functions from genomes to genomes."""
