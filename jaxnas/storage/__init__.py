"""Files that survive being killed; knows no domain type."""
