"""Pure statistics: the Control record, randomisation and bootstrap intervals."""
