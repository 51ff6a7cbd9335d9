"""What answers say, whether they mean the same, and which of several is taken. Pure: nobody is asked here."""
