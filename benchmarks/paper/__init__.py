"""One module for each table or figure of the papers: our numbers beside the printed ones."""
