"""One module for each table or figure of the papers: our figures and the printed ones."""
