"""How the tables of the store came to be; run by `database.migrate`, never by hand."""
