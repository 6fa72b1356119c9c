"""What people look at: text from elsewhere made harmless, tables, records and a bar on a terminal."""
